"""Open a trained network that a user named: a run folder, a model folder or a weight file."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax
from jax.sharding import Mesh

from ssd_jax.config import Config
from ssd_jax.files import make_user_path
from ssd_jax.inference.detector import Detector
from ssd_jax.model_zoo import hub
from ssd_jax.model_zoo.model_folder import Dtype, is_model_folder, read_params, write_model_folder
from ssd_jax.models.parameters import Params
from ssd_jax.runs import run_folder
from ssd_jax.runtime import sharding

Checkpoint = Literal["best", "last"]


@dataclass(frozen=True)
class OpenedModel:
    """A trained network whose parameters are not read yet. `open_model` creates it."""

    name: str
    """Name or path that the user gave, for messages."""
    config: Config
    """Config of the network. It has no class names if the network is only a backbone."""
    folder: Path | None
    """Run folder, into which files about the network may be written. None for everything else."""
    read: Callable[[str, Mesh], tuple[Params, int]]
    """Function from a checkpoint, "best" or "last", and devices to the parameters and their training step."""

    def load_params(self, checkpoint: str = "best", mesh: Mesh | None = None) -> tuple[Params, int]:
        """Return the parameters for inference, and their training step.

        Args:
            checkpoint: Checkpoint of a run, "best" or "last". A model folder or a weight file has only one.
            mesh: Devices that each get a copy of the parameters. None: one device.

        Raises:
            UserError: If the parameters cannot be read, or do not fit the config.
        """
        return self.read(checkpoint, mesh or sharding.single_device_mesh())


def open_model(source: str | Path, class_names: Sequence[str] | None = ()) -> OpenedModel:
    """Open a trained network.

    Args:
        source: Run folder, model folder, weight file of another project, or the address of a model on the Hugging Face
            Hub, such as ``hf://user/name`` or ``hf://user/name@revision``, which is downloaded.
        class_names: Class names of a weight file, as for `import_weights`.

    Raises:
        UserError: If there is no such run, folder, file or model on the Hub, or if its config is not valid.
    """
    path = hub.download_model(source) if hub.is_address(source) else make_user_path(source)
    if path.is_file():
        return _open_weight_file(path, str(source), class_names)
    config = run_folder.read_config(path)
    if is_model_folder(path) and not run_folder.has_checkpoint(path):
        return OpenedModel(str(source), config, None, lambda _, mesh: _place(*read_params(path, config), mesh))

    def restore(checkpoint: str, mesh: Mesh) -> tuple[Params, int]:
        from ssd_jax.inference.restoring import restore_params  # imports Orbax, which only runs need

        return restore_params(path, config, checkpoint, mesh)

    return OpenedModel(str(source), config, path, restore)


def open_detector(source: str | Path) -> OpenedModel:
    """Open a trained network, as `open_model` does, and check that it is a detector.

    Raises:
        UserError: As `open_model`, or if the network is only a backbone without class predictors.
    """
    model = open_model(source)
    run_folder.check_is_detector(model.config, model.name)
    return model


def load(run: str | Path, checkpoint: Checkpoint = "best") -> Detector:
    """Load a trained detector.

    Args:
        run: Run folder, model folder, weight file of another project, or an address on the Hugging Face Hub, such as
            ``hf://user/name`` or ``hf://user/name@revision``.
        checkpoint: "best" for the checkpoint with the highest mAP on the val split during training, "last" for the
            latest one. A run that was never evaluated has no best checkpoint, so its last one is loaded.

    Returns:
        The detector. Call it on images.

    Raises:
        UserError: If there is no such run, folder or file, if it holds only a backbone or has no checkpoint, or if the
            parameters do not fit the config.
    """
    model = open_detector(run)
    return Detector(model.config, *model.load_params(checkpoint))


def save_model_folder(
    model: str | Path | Detector,
    folder: str | Path,
    *,
    dtype: Dtype = "float16",
    card: str = "",
    checkpoint: Checkpoint = "best",
) -> Path:
    """Write a trained detector to a model folder, which has a config, the parameters for inference and a card.

    Args:
        model: Detector, run folder, or anything else that `load` takes.
        folder: Folder to write: a new or empty one, or a model folder, whose files are replaced.
        dtype: Type of the stored parameters. float16 halves the size and keeps 11 significant bits of each number.
        card: Text of README.md. If empty, a short one is written.
        checkpoint: Checkpoint of a run, as for `load`.

    Returns:
        The folder, which `ssd_jax.load` takes.

    Raises:
        UserError: If the detector cannot be loaded, if the folder has other files or cannot be written, or if a
            parameter is too large for float16.
    """
    folder = make_user_path(folder)
    if isinstance(model, Detector):
        config, params, step = model.config, model.params, model.step
    else:
        opened = open_detector(model)
        config, (params, step) = opened.config, opened.load_params(checkpoint)
    write_model_folder(config, sharding.fetch(params), step, folder, dtype=dtype, card=card)
    return folder


def _open_weight_file(file: Path, name: str, class_names: Sequence[str] | None) -> OpenedModel:
    from ssd_jax.weights.importing import import_weights  # the readers of all formats

    imported = import_weights(file, class_names=class_names)
    return OpenedModel(name, imported.config, None, lambda _, mesh: _place(imported.params, 0, mesh))


def _place(params: Params, step: int, mesh: Mesh) -> tuple[Params, int]:
    """Copy parameters to each device of a mesh."""
    return jax.device_put(params, sharding.make_replicated_sharding(mesh)), step
