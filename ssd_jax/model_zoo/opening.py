"""Open a trained network that a user named: a run folder, a model folder, a file, or a model of the catalog."""

import json
import logging
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ssd_jax.config import Config
from ssd_jax.errors import UserError, convert_errors
from ssd_jax.exported import reading
from ssd_jax.exported.prediction import make_predict
from ssd_jax.exported.program import Program
from ssd_jax.files import make_user_path
from ssd_jax.inference.batching import Batching, choose_batching
from ssd_jax.inference.detector import Detector
from ssd_jax.model_zoo import catalog, hub
from ssd_jax.model_zoo.catalog import CatalogModel
from ssd_jax.model_zoo.model_folder import is_model_folder, read_params
from ssd_jax.models.parameters import Params
from ssd_jax.runs import run_folder
from ssd_jax.runs.config_file import decode_config

Checkpoint = Literal["best", "last"]
Mesh = Any
"""A `jax.sharding.Mesh`. JAX, whose import takes half a second, is not imported before the parameters are read."""
logger = logging.getLogger(__name__)


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
    model_folder: Path | None = None
    """Model folder, which has a card. None for everything else."""
    program: Program | None = None
    """Program of an exported file, which has no parameters that another program could use. None for everything else."""
    license: str = ""
    """License of a model of the catalog, with its owner. Empty for everything else."""

    @property
    def short_name(self) -> str:
        """Last part of the name, such as own_data for runs/own_data, for titles and file names."""
        return make_user_path(self.name).resolve().name

    def check_checkpoint(self, checkpoint: str) -> None:
        """Check that a checkpoint can be chosen.

        Raises:
            UserError: If it is the last one of an exported file, which has only one.
        """
        if self.program is not None and checkpoint != "best":
            source = self.program.metadata.source
            raise UserError(
                f"{self.name}: --checkpoint {checkpoint}: an exported file has only one checkpoint, that of step "
                f"{source.step} of {source.name}. Leave the option out"
            )

    def load_params(self, checkpoint: str = "best", mesh: Mesh | None = None) -> tuple[Params, int]:
        """Return the parameters for inference, and their training step.

        Args:
            checkpoint: Checkpoint of a run, "best" or "last". Everything else has only one.
            mesh: Devices that each get a copy of the parameters. None: one device.

        Raises:
            UserError: If the parameters cannot be read, or do not fit the config.
        """
        from ssd_jax.runtime import sharding

        return self.read(checkpoint, mesh or sharding.single_device_mesh())

    def load_detector(self, checkpoint: str = "best") -> Detector:
        """Return the detector.

        Args:
            checkpoint: Checkpoint of a run, "best" or "last". Everything else has only one.

        Raises:
            UserError: As `load_params`.
        """
        self.check_checkpoint(checkpoint)
        if self.program is None:
            return Detector.from_params(self.config, *self.load_params(checkpoint))
        has_any_shape = not self.program.is_compiled_for_shapes or self.program.metadata.batch is not None
        batching: Batching = "any" if has_any_shape else choose_batching()
        detect = make_predict(self.program)
        return Detector(self.config, detect, self.program.metadata.source.step, batching=batching)


def open_model(source: str | Path, class_names: Sequence[str] | None = ()) -> OpenedModel:
    """Open a trained network.

    A file, or a folder with a config.json, takes precedence over a model of the catalog with the same name.

    Args:
        source: Run folder, model folder, weight file of another project, file that ``ssd-jax export`` wrote, name of a
            model in the catalog, or the address of a model on the Hugging Face Hub, such as ``hf://user/name`` or
            ``hf://user/name@revision``. What is not on this machine is downloaded.
        class_names: Class names of a weight file, as for `import_weights`.

    Raises:
        UserError: If there is nothing of this name, if its config is not valid, or if it cannot be downloaded.
        TypeError: If ``source`` is neither a text nor a path.
    """
    if not isinstance(source, str | Path):
        raise TypeError(f"expected the path or the name of a model, got {type(source).__name__}")
    if hub.is_address(source):
        return _open_path(hub.download_model(source), str(source), class_names)
    model = find_model(source)
    if model is None:
        return _open_path(make_user_path(source), str(source), class_names)
    if model.is_bundled:
        opened = _open_path(model.folder, model.name, class_names)
    else:
        with provide_weight_file(model) as file:
            opened = _open_path(file, model.name, class_names)
    return replace(opened, license=model.license)


def find_model(source: str | Path) -> CatalogModel | None:
    """Return the model of the catalog that a user named, or None if the user named a file or folder.

    Raises:
        UserError: If there is neither a file nor a folder nor a model of this name. The message lists similar names.
    """
    model = _find_model(source)
    if model is None and str(source) in catalog.CATALOG:
        logger.warning("%s is the one in this folder, not the model that ssd-jax has under this name", source)
    return model


def _find_model(source: str | Path) -> CatalogModel | None:
    """Do the same as `find_model`, without a warning about a file that has the name of a model."""
    name, path = str(source), make_user_path(source)
    if name in catalog.CATALOG and not _is_network_path(path):
        return catalog.CATALOG[name]
    if path.exists():
        return None
    raise UserError(
        f"{name}: there is no such run, model folder or weight file, and no model of this name. "
        f"{catalog.format_similar_names(name)}`ssd-jax models` lists the names"
    )


def check_model_exists(source: str | Path) -> None:
    """Raise an error if a user named nothing that `open_model` could open. Addresses on the Hub are not checked.

    Raises:
        UserError: As `find_model`.
    """
    if not hub.is_address(source):
        _find_model(source)


def make_location_absolute(source: str | Path) -> str:
    """Return what a user named as an absolute path, or as it is if it is a name in the catalog or an address."""
    path = make_user_path(source)
    is_name = str(source) in catalog.CATALOG and not _is_network_path(path)
    return str(source) if is_name or hub.is_address(source) else str(path.absolute())


@contextmanager
def provide_weight_file(model: CatalogModel) -> Iterator[Path]:
    """Yield the weight file of a model of the catalog, after downloading it if it is not in the cache.

    If the download is an archive, the file is only there during the ``with`` block.

    Raises:
        UserError: If the file cannot be downloaded, or is not in the archive.
    """
    from ssd_jax.model_zoo.download import fetch_model  # most networks are not downloaded

    file = fetch_model(model)
    if not model.member:
        yield file
        return
    with tempfile.TemporaryDirectory(prefix="ssd_jax_") as temporary:
        extracted = Path(temporary) / Path(model.member).name
        with convert_errors(f"{file}: {model.member} can't be extracted"), tarfile.open(file) as archive:
            stream = archive.extractfile(model.member)
            assert stream is not None, "it is not a file"
            with stream, extracted.open("wb") as out:
                shutil.copyfileobj(stream, out)
        yield extracted


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
        run: Run folder, model folder, weight file of another project, file that ``ssd-jax export`` wrote, name of a
            model that ``ssd-jax models`` lists, such as "blood-cells", or an address on the Hugging Face Hub, such as
            ``hf://user/name`` or ``hf://user/name@revision``.
        checkpoint: "best" for the checkpoint with the highest mAP on the val split during training, "last" for the
            latest one. A run that was never evaluated has no best checkpoint, so its last one is loaded.

    Returns:
        The detector. Call it on images.

    Raises:
        UserError: If there is no such run, folder, file or model, if it holds only a backbone or has no checkpoint, if
            it cannot be downloaded, or if the parameters do not fit the config.
    """
    return open_detector(run).load_detector(checkpoint)


def _is_network_path(path: Path) -> bool:
    return path.is_file() or run_folder.is_run_folder(path)


def _open_path(path: Path, name: str, class_names: Sequence[str] | None) -> OpenedModel:
    """Open an exported file, a weight file, a model folder or a run folder."""
    if path.is_file():
        reading.check_is_first_file(path)
        return (
            _open_exported_file(path, name) if reading.find_format(path) else _open_weight_file(path, name, class_names)
        )
    config = run_folder.read_config(path)
    if is_model_folder(path) and not run_folder.has_checkpoint(path):
        return OpenedModel(name, config, None, lambda _, mesh: _place(*read_params(path, config), mesh), path)

    def restore(checkpoint: str, mesh: Mesh) -> tuple[Params, int]:
        from ssd_jax.inference.restoring import restore_params  # imports Orbax, which only runs need

        return restore_params(path, config, checkpoint, mesh)

    return OpenedModel(name, config, path, restore)


def _open_exported_file(file: Path, name: str) -> OpenedModel:
    program = reading.read_program(file)
    try:
        config = decode_config(json.dumps(program.metadata.config).encode())
    except UserError as error:
        raise UserError(f"{file}: {error}. The file was changed, or was written by another version") from None
    origin = program.metadata.source.name

    def refuse(checkpoint: str, mesh: Mesh) -> tuple[Params, int]:
        raise UserError(
            f"{name} is an exported file, which only detects objects. Name the run it was made from, {origin}"
        )

    return OpenedModel(name, config, None, refuse, program=program)


def _open_weight_file(file: Path, name: str, class_names: Sequence[str] | None) -> OpenedModel:
    from ssd_jax.weights.importing import import_weights  # the readers of all formats

    imported = import_weights(file, class_names=class_names)
    return OpenedModel(name, imported.config, None, lambda _, mesh: _place(imported.params, 0, mesh))


def _place(params: Params, step: int, mesh: Mesh) -> tuple[Params, int]:
    """Copy parameters to each device of a mesh."""
    import jax

    from ssd_jax.runtime import sharding

    return jax.device_put(params, sharding.make_replicated_sharding(mesh)), step
