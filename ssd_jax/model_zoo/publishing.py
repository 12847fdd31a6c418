"""The function `push`, which uploads a trained detector to the Hugging Face Hub. ``ssd-jax push`` calls it."""

import difflib
import logging
import re
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

from ssd_jax.errors import UserError
from ssd_jax.files import make_user_path
from ssd_jax.model_zoo import hub
from ssd_jax.model_zoo.model_folder import CARD_NAME, FILE_NAMES, PICTURE_NAME, write_model_folder
from ssd_jax.model_zoo.opening import Checkpoint, open_detector
from ssd_jax.model_zoo.saving import copy_files, describe_model
from ssd_jax.runtime import sharding

_REPOSITORY = re.compile(r"\b[\w\-.]+\b/\b[\w\-.]{1,96}\b", re.ASCII)

_LICENSES = """
afl-3.0 agpl-3.0 apache-2.0 artistic-2.0 bigcode-openrail-m bigscience-bloom-rail-1.0 bigscience-openrail-m bsd
bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-nc-2.0
cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0
cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0 cdla-permissive-2.0 cdla-sharing-1.0
creativeml-openrail-m deepfloyd-if-license ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 gemma gfdl gpl gpl-2.0
gpl-3.0 isc lgpl lgpl-2.1 lgpl-3.0 lgpl-lr llama2 lppl-1.3c mit mpl-2.0 ms-pl ncsa odbl odc-by ofl-1.1 openrail
openrail++ osl-3.0 other pddl postgresql unknown unlicense wtfpl zlib
"""
"""Identifiers of licenses that the Hub accepts, from docs/hub/repositories-licenses.md of huggingface/hub-docs (commit
008d54d). The Hub may know more of them by now, so another one only leads to a warning."""
LICENSE_IDS = frozenset(_LICENSES.split())

logger = logging.getLogger(__name__)


class Pushed(NamedTuple):
    """Result of `push`."""

    page: str
    """Address of the page of the repository. Empty after a dry run."""
    sizes: dict[str, int]
    """Size in bytes of each file, by name."""
    has_accuracy: bool
    """Whether the card has the metrics of the weights. True for a model folder, because its card is not changed."""


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
        license_id: Identifier of the license of the weights for the card, such as ``mit``. The card of a model folder
            already states its license.
        picture: Whether to upload the picture that ``evaluate`` or ``train`` drew, with images of the data set.
        checkpoint: Checkpoint of a run, as for `ssd_jax.load`.
        dry_run: Folder in which the files are written instead of being uploaded.

    Raises:
        UserError: If the name of the repository is not valid, if the detector cannot be loaded, if a license is given
            for a model folder, or if the files cannot be written or uploaded.
    """
    _check_repository(repository)
    _check_license(license_id)
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
    opened = open_detector(model)
    config, (params, step) = opened.config, opened.load_params(checkpoint)  # checks the files of a model folder
    if opened.model_folder is not None:
        if license_id:
            raise UserError(
                f"--license {license_id}: the card of a model folder is uploaded as it is. State the license in the "
                f"{CARD_NAME} of {model}, and leave out --license"
            )
        names = [*FILE_NAMES, *([PICTURE_NAME] if picture else [])]
        sources = {opened.model_folder / name: name for name in names}
        return copy_files({file: name for file, name in sources.items() if file.is_file()}, folder), True
    described = describe_model(
        opened,
        params,
        step,
        name=repository.rpartition("/")[2],
        reference=f"hf://{repository}",
        license_id=license_id,
        picture=picture,
    )
    write_model_folder(config, sharding.fetch(params), step, folder, card=described.card, dtype="float32")
    files = [folder / name for name in FILE_NAMES]
    if described.picture is not None:
        files += copy_files({described.picture: PICTURE_NAME}, folder)
    return files, described.has_accuracy


def _check_repository(name: str) -> None:
    """Raise a UserError if a name is not USER/NAME with the characters that the Hub allows.

    The rules are those of ``validate_repo_id`` in huggingface_hub/utils/_validators.py, which need not be installed.
    """
    if not _REPOSITORY.fullmatch(name) or "--" in name or ".." in name or name.endswith(".git"):
        raise UserError(
            f"'{name}' is not the name of a repository. Write USER/NAME, with letters, digits, single '-' and '.', and "
            "'_' only"
        )


def _check_license(license_id: str) -> None:
    """Log a warning if the Hub may not know the identifier of a license."""
    if not license_id or license_id in LICENSE_IDS:
        return
    similar = difflib.get_close_matches(license_id.lower(), LICENSE_IDS, n=3)
    advice = f" Did you mean {' or '.join(similar)}?" if similar else " For a license without identifier, write other."
    logger.warning("--license %s: the Hub may not know this identifier and refuse the card.%s", license_id, advice)
