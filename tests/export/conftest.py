"""Fixtures for the tests of exported files."""

from pathlib import Path

import pytest
from helpers.tiny_detector import CONFIG, make_random_params

from ssd_jax.export import pictures
from ssd_jax.model_zoo.model_folder import write_model_folder
from ssd_jax.models.parameters import CLASS_PREDICTOR


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model folder of the tiny network. Its data cannot be found, so photographs of the package are used.

    The kernels that predict classes are large, so that the scores depend on the pixels.
    """
    folder = tmp_path_factory.mktemp("models") / "tiny"
    params = make_random_params()
    for name in params:
        if name.endswith(CLASS_PREDICTOR):
            params[name]["kernel"] *= 30
    write_model_folder(CONFIG, params, 7, folder, dtype="float32", card="-")
    return folder


@pytest.fixture
def few_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare exported files on three pictures only."""
    monkeypatch.setattr(pictures, "COUNT", 3)
