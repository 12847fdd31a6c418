"""Write a trained detector to a model folder, with a card that describes it."""

import shutil
from pathlib import Path
from typing import NamedTuple

import jax

from ssd_jax.config import Config
from ssd_jax.errors import UserError
from ssd_jax.files import convert_read_errors, convert_write_errors, make_safe_file_name, make_user_path
from ssd_jax.inference.detector import Detector
from ssd_jax.model_zoo.card import CardFacts, make_card, read_card_facts
from ssd_jax.model_zoo.model_folder import CARD_NAME, PICTURE_NAME, Dtype, write_model_folder
from ssd_jax.model_zoo.opening import Checkpoint, OpenedModel, open_detector
from ssd_jax.models.parameters import Params
from ssd_jax.runtime import sharding


class Description(NamedTuple):
    """Description of a trained detector for readers."""

    card: str
    """Text of README.md."""
    picture: Path | None
    """Picture with detections that the card shows."""
    has_accuracy: bool
    """Whether the card has the metrics of these parameters."""


def save_model_folder(
    model: str | Path | Detector,
    folder: str | Path,
    *,
    dtype: Dtype = "float16",
    card: str = "",
    checkpoint: Checkpoint = "best",
) -> Path:
    """Write a trained detector to a model folder, which has a config, the parameters for inference and a card.

    The card of a run has the metrics that ``evaluate`` measured for the same checkpoint. A model folder keeps its card
    and its picture.

    Args:
        model: Detector, run folder, or anything else that `load` takes.
        folder: Folder to write: a new or empty one, or a model folder, whose files are replaced.
        dtype: Type of the stored parameters. float16 halves the size and keeps 11 significant bits of each number.
        card: Text of README.md, in place of the one that describes the model.
        checkpoint: Checkpoint of a run, as for `load`.

    Returns:
        The folder, which `ssd_jax.load` takes.

    Raises:
        UserError: If the detector cannot be loaded, if the folder has other files or cannot be written, or if a
            parameter is too large for float16.
    """
    folder = make_user_path(folder)
    name = folder.resolve().name
    if isinstance(model, Detector):
        if model.params is None:
            raise UserError("this detector was loaded from an exported file, which has no parameters to save")
        config, params, step = model.config, model.params, model.step
        described = Description(make_card(_make_facts(config, params, step), name=name, reference=name), None, False)
    else:
        opened = open_detector(model)
        config, (params, step) = opened.config, opened.load_params(checkpoint)
        described = describe_model(opened, params, step, name=name, reference=name, picture=False)
    write_model_folder(config, sharding.fetch(params), step, folder, card=card or described.card, dtype=dtype)
    if described.picture is not None:
        copy_files({described.picture: PICTURE_NAME}, folder)
    return folder


def describe_model(
    opened: OpenedModel,
    params: Params,
    step: int,
    *,
    name: str,
    reference: str,
    license_id: str = "",
    picture: bool = True,
) -> Description:
    """Return the description of a detector: that of its model folder, or a new one.

    Args:
        opened: The detector.
        params: Its parameters.
        step: Training step of the parameters.
        name: Name of the detector, for the title of a new card.
        reference: What ``ssd_jax.load`` takes, for a new card.
        license_id: Identifier of the license of the weights, for a new card.
        picture: Whether a new card shows the picture that ``evaluate`` or ``train`` drew, with images of the data set.

    Raises:
        UserError: If the card or the metrics cannot be read.
    """
    if opened.model_folder is not None and (opened.model_folder / CARD_NAME).is_file():
        return _read_description(opened.model_folder)
    facts = _make_facts(opened.config, params, step)
    drawn = None
    if opened.folder is not None:
        facts = read_card_facts(opened.folder, opened.config, step, facts.parameters)
        drawn = _find_picture(opened.folder, facts) if picture else None
    shown = PICTURE_NAME if drawn else ""
    card = make_card(facts, name=name, reference=reference, license_id=license_id, picture=shown)
    return Description(card, drawn, facts.accuracy is not None)


def copy_files(files: dict[Path, str], folder: Path) -> list[Path]:
    """Copy files into a folder under new names, and return the new paths. Files that are there already are kept.

    Raises:
        UserError: If a file cannot be written.
    """
    targets = []
    with convert_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for file, name in files.items():
            targets.append(folder / name)
            if file.resolve() != targets[-1].resolve():
                shutil.copyfile(file, targets[-1])
    return targets


def _read_description(folder: Path) -> Description:
    """Return the description that a model folder has."""
    file, picture = folder / CARD_NAME, folder / PICTURE_NAME
    with convert_read_errors(file):
        card = file.read_text(encoding="utf-8")
    return Description(card, picture if picture.is_file() else None, True)


def _make_facts(config: Config, params: Params, step: int) -> CardFacts:
    return CardFacts(config, step, parameters=sum(leaf.size for leaf in jax.tree.leaves(params)))


def _find_picture(run: Path, facts: CardFacts) -> Path | None:
    """Return the picture that ``evaluate`` drew of its split, or the one that ``train`` drew of the val split."""
    splits = [facts.accuracy.split] if facts.accuracy else []
    pictures = [run / f"{make_safe_file_name(split)}_pred.jpg" for split in [*splits, "val"]]
    return next((file for file in pictures if file.is_file()), None)
