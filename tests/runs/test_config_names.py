"""Tests of finding a config by its name or path, in a checkout and in an installed package."""

import logging
import shutil
from pathlib import Path

import pytest
from helpers.cli import TINY
from helpers.paths import ROOT

from ssd_jax.errors import UserError
from ssd_jax.runs import config_names
from ssd_jax.runs.config_file import load_config
from ssd_jax.runs.config_names import find_config_file, list_configs

NAMES = sorted(path.stem for path in (ROOT / "configs").glob("*.py"))


@pytest.fixture(params=["checkout", "wheel"])
def configs_folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of the configs in a checkout or an installed package, with an empty current folder."""
    current = tmp_path / "current"
    current.mkdir()
    monkeypatch.chdir(current)
    if request.param == "checkout":
        return ROOT / "configs"
    package = tmp_path / "site-packages" / "ssd_jax"
    shutil.copytree(ROOT / "configs", package / "configs", ignore=shutil.ignore_patterns("__pycache__"))
    (package.parent / "configs").mkdir()  # of another distribution
    (package.parent / "configs" / "other.py").touch()
    monkeypatch.setattr(config_names, "_PACKAGE", package)
    return package / "configs"


def test_list_configs_finds_all_configs(configs_folder):
    assert list_configs() == {name: configs_folder / f"{name}.py" for name in NAMES}


@pytest.mark.parametrize("config", ["own_data", "own_data.py", "configs/own_data.py", Path("own_data")])
def test_name_and_path_of_the_checkout_find_the_config_in_any_folder(configs_folder, config):
    assert find_config_file(config) == configs_folder / "own_data.py"


def test_load_config_accepts_every_name_in_any_folder(configs_folder):
    for name in NAMES:
        assert load_config(name).name == name
    assert load_config("own_data", {"train.steps": 7}).train.steps == 7


@pytest.mark.parametrize("path", ["own_data.py", "configs/own_data.py", "mine/own_data.py", "./own_data.py", "new.py"])
def test_existing_path_is_used_instead_of_the_config_with_its_name(configs_folder, path):
    file = Path(path)
    file.parent.mkdir(exist_ok=True)
    file.touch()
    assert find_config_file(path) == file


def test_name_is_not_a_file_or_folder_of_the_current_folder(configs_folder, caplog):
    Path("own_data").mkdir()
    assert find_config_file("own_data") == configs_folder / "own_data.py"
    assert caplog.records == []
    Path("own_data.py").touch()
    assert find_config_file("own_data") == configs_folder / "own_data.py"
    (record,) = caplog.records
    assert record.levelno == logging.WARNING and "own_data.py" in record.getMessage()


def test_name_in_the_folder_of_the_configs_gives_no_warning(configs_folder, monkeypatch, caplog):
    monkeypatch.chdir(configs_folder)
    assert find_config_file("own_data").samefile("own_data.py")
    assert caplog.records == []


@pytest.mark.parametrize(
    ("config", "similar"),
    [
        ("own_dta", "own_data"),
        ("ssd300-voc", "ssd300_voc"),
        ("shape.py", "shapes"),
        ("configs/shape.py", "shapes"),
        ("./own_data.py", "own_data"),
        ("other/shapes.py", "shapes"),
        ("other", None),
        ("x" * 5000, None),
    ],
)
def test_unknown_config_gives_similar_names(configs_folder, config, similar):
    with pytest.raises(UserError) as error:
        load_config(config)
    assert config in str(error.value) and "ssd-jax configs" in str(error.value)
    assert (f"Did you mean {similar}" in str(error.value)) == (similar is not None)
    assert "Did you mean" not in str(error.value) or similar


def test_home_folder_is_expanded(configs_folder, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copy(TINY, tmp_path / "mine.py")
    assert find_config_file("~/mine.py") == tmp_path / "mine.py"


def test_folder_is_recommended_as_data_root(configs_folder):
    Path("photos").mkdir()
    with pytest.raises(UserError, match=r"own_data --data\.root photos"):
        load_config("photos")
