"""Fingerprints of the splits that a run is trained on, in the file data.json of its folder.

They show whether images or boxes were added, removed or changed since the run was started.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import msgspec

from ssd_jax.data.source import Source
from ssd_jax.errors import UserError
from ssd_jax.files import convert_read_errors, write_text

_FILE = "data.json"


class Fingerprint(msgspec.Struct, frozen=True):
    """Summary of the ids and the annotations of a split."""

    images: int
    """Number of images."""
    objects: int
    """Number of objects."""
    digest: str
    """Hash of the ids, sizes, boxes and labels of all images, in their order. The pixels are not part of it."""


def compute_fingerprint(source: Source) -> Fingerprint:
    """Return the fingerprint of a split. Its annotations should be in memory; the images are not read."""
    objects, digest = 0, hashlib.blake2b(digest_size=16)
    for image in source.annotations():
        objects += len(image.labels)
        digest.update(image.image_id.encode(errors="surrogateescape"))
        digest.update(f"\0{image.width} {image.height} {len(image.labels)}\0".encode())
        digest.update(image.boxes_px.tobytes() + image.labels.tobytes())
    return Fingerprint(len(source), objects, digest.hexdigest())


def update_fingerprints(workdir: Path, sources: Mapping[str, Source]) -> list[str]:
    """Write the fingerprints of the splits of a run to data.json, and describe how they differ from those before.

    Splits whose annotations are not in memory, such as generated images, are left out.

    Args:
        workdir: Run folder.
        sources: Dict from the name of each split to the split.

    Returns:
        A sentence for each split that has changed. A split that was not in data.json, as in folders of earlier
        versions, counts as unchanged.

    Raises:
        UserError: If data.json cannot be written.
    """
    before = read_fingerprints(workdir)
    now = {name: compute_fingerprint(source) for name, source in sources.items() if source.in_memory}
    if before | now != before:
        write_text(workdir / _FILE, msgspec.json.format(msgspec.json.encode(before | now)).decode() + "\n")
    return [_describe(name, before[name], now[name]) for name in now if before.get(name, now[name]) != now[name]]


def read_fingerprints(workdir: Path) -> dict[str, Fingerprint]:
    """Return the fingerprints of the splits of a run, by name.

    The result is empty if data.json does not exist or is corrupt, because the fingerprints are not necessary.

    Args:
        workdir: Run folder.
    """
    file = workdir / _FILE
    try:
        with convert_read_errors(file):
            return msgspec.json.decode(file.read_bytes(), type=dict[str, Fingerprint]) if file.exists() else {}
    except (UserError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}


def _describe(split: str, before: Fingerprint, now: Fingerprint) -> str:
    counts = [f"{f.images} images with {f.objects} objects" for f in (before, now)]
    if counts[0] != counts[1]:
        return f"the data of split '{split}' have changed since this run was trained: {counts[0]} then, {counts[1]} now"
    return f"the data of split '{split}' have changed since this run was trained: other images or boxes ({counts[1]})"
