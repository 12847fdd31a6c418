"""The function `push`, which uploads a trained detector to the Hugging Face Hub. ``ssd-jax push`` calls it."""

import re
import shutil
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import jax

from ssd_jax.errors import UserError
from ssd_jax.files import convert_write_errors, make_safe_file_name, make_user_path
from ssd_jax.model_zoo import hub
from ssd_jax.model_zoo.card import CardFacts, make_card, read_card_facts
from ssd_jax.model_zoo.model_folder import (
    FILE_NAMES,
    PICTURE_NAME,
    is_model_folder,
    read_model_folder,
    write_model_folder,
)
from ssd_jax.model_zoo.opening import Checkpoint, find_model, open_detector
from ssd_jax.runs import run_folder
from ssd_jax.runtime import sharding


class Pushed(NamedTuple):
    """Result of `push`."""

    page: str
    """Address of the page of the repository. Empty after a dry run."""
    sizes: dict[str, int]
    """Size in bytes of each file, by name."""
    has_accuracy: bool
    """Whether the card has the metrics of the weights. True for a model folder, whose card is not changed."""


def push(
    model: str | Path,
    repository: str,
    *,
    private: bool = False,
    license_id: str = "",
    picture: bool = True,
    checkpoint: Checkpoint = "best",
    dry_run: str | Path | None = None,
) -> Pushed:
    """Upload a trained detector to the Hugging Face Hub, with a card that describes it.

    The files are ``config.json``, without the paths of this machine, ``model.safetensors`` with the float32 parameters,
    ``README.md`` with the card and, if the run has one, a picture with detections. The files of a model folder are
    uploaded as they are.

    Args:
        model: Run folder, model folder, or anything else that `ssd_jax.load` takes.
        repository: Name of the repository, such as ``user/name``. It is created if it does not exist.
        private: Whether to create a private repository.
        license_id: Identifier of the license of the weights for the card, such as ``mit``.
        picture: Whether to upload the picture that ``evaluate`` or ``train`` drew, with images of the data set.
        checkpoint: Checkpoint of a run, as for `ssd_jax.load`.
        dry_run: Folder in which the files are written instead of being uploaded.

    Raises:
        UserError: If the name of the repository is not valid, if the detector cannot be loaded, or if the files cannot
            be written or uploaded.
    """
    if not re.fullmatch(r"[^/\s]+/[^/\s]+", repository):
        raise UserError(f"'{repository}' is not the name of a repository. Write USER/NAME.")
    if dry_run is None:
        hub.check_can_upload(repository)  # before the work
    target = tempfile.TemporaryDirectory(prefix="ssd_jax_") if dry_run is None else nullcontext(str(dry_run))
    with target as folder:
        files, has_accuracy = _write_files(
            model, make_user_path(folder), repository, license_id=license_id, picture=picture, checkpoint=checkpoint
        )
        sizes = {file.name: file.stat().st_size for file in files}
        page = hub.upload_files(files, repository, private=private) if dry_run is None else ""
    return Pushed(page, sizes, has_accuracy)


def _write_files(
    model: str | Path, folder: Path, repository: str, *, license_id: str, picture: bool, checkpoint: Checkpoint
) -> tuple[list[Path], bool]:
    """Write the files of a repository to a folder. Return their paths, and whether the card has metrics."""
    bundled = None if hub.is_address(model) else find_model(model)
    source = bundled.folder if bundled is not None and bundled.is_bundled else make_user_path(model)
    if is_model_folder(source) and not run_folder.has_checkpoint(source):
        read_model_folder(source)  # checks the files
        names = [*FILE_NAMES, *([PICTURE_NAME] if picture else [])]
        return _copy({source / name: name for name in names}, folder), True
    opened = open_detector(model)
    config, (params, step) = opened.config, opened.load_params(checkpoint)
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    facts = CardFacts(config, step, parameters=count)
    if opened.folder is not None:
        facts = read_card_facts(opened.folder, config, step, count)
    drawn = _find_picture(opened.folder, facts) if picture and opened.folder is not None else None
    text = make_card(
        facts,
        name=repository.rpartition("/")[2],
        reference=f"hf://{repository}",
        license_id=license_id,
        picture=PICTURE_NAME if drawn else "",
    )
    write_model_folder(config, sharding.fetch(params), step, folder, dtype="float32", card=text)
    files = [folder / name for name in FILE_NAMES]
    return files + _copy({drawn: PICTURE_NAME} if drawn else {}, folder), facts.accuracy is not None


def _find_picture(run: Path, facts: CardFacts) -> Path | None:
    """Return the picture that ``evaluate`` drew of its split, or the one that ``train`` drew of the val split."""
    splits = [facts.accuracy.split] if facts.accuracy else []
    pictures = [run / f"{make_safe_file_name(split)}_pred.jpg" for split in [*splits, "val"]]
    return next((file for file in pictures if file.is_file()), None)


def _copy(files: dict[Path, str], folder: Path) -> list[Path]:
    """Copy those files that exist into a folder under new names, and return the new paths."""
    with convert_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        return [Path(shutil.copyfile(file, folder / name)) for file, name in files.items() if file.is_file()]
