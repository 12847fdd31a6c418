"""A whole data set looked at before training: what is wrong with it, what is in it, what its boxes ask for."""

import csv
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int32

from ssd_jax.config import Config, Data
from ssd_jax.data.check import box_coverage
from ssd_jax.data.check.box_coverage import Coverage
from ssd_jax.data.formats.open import missing_split, open_source
from ssd_jax.data.image import mode_and_orientation
from ssd_jax.data.loader import keep_trainable_objects
from ssd_jax.data.problems import Kind, Problem, Problems
from ssd_jax.data.source import Source
from ssd_jax.files import write_text


class SplitCount(NamedTuple):
    """What is in a split."""

    images: int
    background: int
    """Images without objects."""
    objects: dict[str, int]
    """Of each class, crowds left out."""


class BoxCoverage(NamedTuple):
    """How much of the train split the config's default boxes can't match."""

    boxes: Float[np.ndarray, "g 4"]
    """What would be trained on: xyxy, normalised."""
    unmatched: Bool[np.ndarray, " g"]
    """Which of them no default box fits."""
    all: Coverage
    by_class: dict[str, Coverage]
    by_size: dict[str, Coverage]
    published: dict[str, Coverage]
    """The same for the published default boxes."""
    advice: str


# ---- what is wrong ----


def open_splits(config: Config, problems: Problems) -> dict[str, Source]:
    """The config's train, val and test splits; the classes are those of train.

    A val split that training would ask for in vain is a problem; a test split may be missing. Raises
    UserError if there is no train split.
    """
    data = config.data
    splits = {data.train_split: open_source(data, data.train_split, config.model.class_names, problems)}
    names = splits[data.train_split].class_names
    asked_for = {data.val_split: config.train.eval_every > 0, data.test_split: False}
    for split, needed in asked_for.items():
        if split in splits or not (needed or missing_split(data, split) is None):
            continue
        with problems.collecting(Kind.MISSING, data.root):
            splits[split] = open_source(data, split, names, problems)
    # Both halves of a folder that is divided by hash find what is wrong with the folder.
    problems.collected = list(dict.fromkeys(problems.collected))
    return splits


def check_annotations(splits: dict[str, Source], data: Data, problems: Problems) -> None:
    """Images with more objects than a batch has room for; classes that may be one, differently written."""
    for split, source in splits.items():
        for annotation in source.annotations():
            annotation = keep_trainable_objects(annotation, data.train_on_difficult)
            if len(annotation.labels) > data.max_objects:
                text = f"{len(annotation.labels)} objects, {data.max_objects} fit (data.max_objects), in {split}"
                problems.add(Kind.TOO_MANY, annotation.file, text)
    spelled: dict[str, str] = {}
    for name in next(iter(splits.values())).class_names:
        plain = "".join(letter for letter in name.casefold() if letter.isalnum()) or name
        if plain in spelled:
            text = f"'{spelled[plain]}' and '{name}' are two classes. If they are one, give them one name."
            problems.add(Kind.SIMILAR_NAMES, data.root, text)
        spelled.setdefault(plain, name)


class _Looked(NamedTuple):
    digest: bytes | None
    problems: list[Problem]


def check_images(splits: dict[str, Source], problems: Problems, progress: Callable[[int], object]) -> dict[str, bytes]:
    """Decodes every image, once each file: those that can't be used, are rotated, not RGB, or the same as another.

    The same: their pixels are equal, whatever the files are called. Returns a hash of the pixels of
    each file that can be used.
    """
    places: dict[str, list[tuple[str, Source, int]]] = {}
    for split, source in splits.items():
        for index, annotation in enumerate(source.annotations()):
            places.setdefault(annotation.file, []).append((split, source, index))

    def look(file: str) -> _Looked:
        _, source, index = places[file][0]
        return _look(source, index, file)

    digests: dict[str, bytes] = {}
    first: dict[bytes, str] = {}
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for file, looked in zip(places, threads.map(look, places), strict=True):
            progress(len(places[file]))
            problems.collected += looked.problems
            own = [split for split, _, _ in places[file]]
            if len(set(own)) > 1:
                problems.add(Kind.TWO_SPLITS, file, f"is in {' and '.join(dict.fromkeys(own))}")
            elif len(own) > 1:
                problems.add(Kind.TWICE, file, f"is in {own[0]} {len(own)} times")
            if looked.digest is None:
                continue
            digests[file] = looked.digest
            twin = first.setdefault(looked.digest, file)
            if twin != file:
                others = [split for split, _, _ in places[twin]]
                kind = Kind.TWICE if set(own) == set(others) else Kind.TWO_SPLITS
                problems.add(kind, file, f"({own[0]}) has the pixels of {twin} ({others[0]})")
    return digests


def _look(source: Source, index: int, file: str) -> _Looked:
    found = Problems(raise_errors=False)
    with found.collecting(Kind.UNREADABLE, file):
        pixels = source.image(index)
        if Path(file).is_file():  # generated and packed pictures are no files
            mode, orientation = mode_and_orientation(file)
            if orientation != 1:
                found.add(Kind.ROTATED, file, f"(orientation {orientation})")
            if mode != "RGB":
                found.add(Kind.NOT_RGB, file, f"({mode})")
        shape = np.array(pixels.shape, np.int64).tobytes()
        return _Looked(hashlib.blake2b(shape + pixels.tobytes(), digest_size=16).digest(), found.collected)
    return _Looked(None, found.collected)


# ---- what is in it ----


def count_split(source: Source) -> SplitCount:
    counts = np.zeros(len(source.class_names), np.int64)
    background = 0
    for annotation in source.annotations():
        labels = annotation.labels[~annotation.crowd]
        counts += np.bincount(labels - 1, minlength=len(counts))
        background += len(labels) == 0
    return SplitCount(len(source), background, dict(zip(source.class_names, counts.tolist(), strict=True)))


def training_boxes(source: Source, data: Data) -> tuple[Float[np.ndarray, "g 4"], Int32[np.ndarray, " g"]]:
    """All boxes of a split that training would match, normalised and cut to their images, and their labels."""
    boxes, labels = [np.zeros((0, 4), np.float32)], [np.zeros(0, np.int32)]
    for annotation in source.annotations():
        annotation = keep_trainable_objects(annotation, data.train_on_difficult)
        side = np.array([annotation.width, annotation.height] * 2, np.float32)
        boxes.append(np.clip(annotation.boxes_px / side, 0, 1))
        labels.append(annotation.labels)
    return np.concatenate(boxes), np.concatenate(labels)


def measure_box_coverage(source: Source, config: Config) -> BoxCoverage:
    """Of the objects of a split the share that the config's default boxes can't match, by class and by size."""
    boxes, labels = training_boxes(source, config.data)
    layout, threshold = config.model.default_boxes, config.match.iou_threshold
    unmatched = box_coverage.best_iou(boxes, layout) < threshold
    own = Coverage(len(unmatched), int(unmatched.sum()))
    published = box_coverage.compare_box_configs(boxes, threshold)
    return BoxCoverage(
        boxes,
        unmatched,
        own,
        box_coverage.coverage_by_class(unmatched, labels, source.class_names),
        box_coverage.coverage_by_size(unmatched, box_coverage.size_bin(boxes, layout.image_size)),
        published,
        box_coverage.advice(own, published, boxes, layout),
    )


# ---- told ----


def to_json(counts: Mapping[str, SplitCount], coverage: BoxCoverage, problems: Iterable[Problem]) -> dict[str, Any]:
    """All of it as plain values: problems by the name of their kind, shares as objects and how many are unmatched."""
    by_kind: dict[str, int] = {}
    for problem in problems:
        by_kind[problem.kind.name.lower()] = by_kind.get(problem.kind.name.lower(), 0) + 1
    shares = {
        name: {key: _share_to_json(share) for key, share in getattr(coverage, name).items()}
        for name in ("by_class", "by_size", "published")
    }
    return {
        "problems": by_kind,
        "splits": {split: count._asdict() for split, count in counts.items()},
        "recall_ceiling": {"all": _share_to_json(coverage.all), **shares, "advice": coverage.advice},
    }


def _share_to_json(share: Coverage) -> dict[str, int]:
    return {"objects": share.objects, "below": share.unmatched}


def format_problems(problems: Iterable[Problem], shown: int = 10) -> str:
    """By kind, the worst first, each problem on a line of its own; of many of a kind the first few."""
    lines: list[str] = []
    by_kind: dict[Kind, list[Problem]] = {}
    for problem in problems:
        by_kind.setdefault(problem.kind, []).append(problem)
    for kind in Kind:  # in the order of their severity
        found = by_kind.get(kind, [])
        if not found:
            continue
        lines.append(f"{kind.severity.value}: {kind.title}: {len(found)}")
        lines += [f"    {problem.file}: {problem.text}".rstrip(": ") for problem in found[:shown]]
        if len(found) > shown:
            lines.append(f"    and {len(found) - shown} more")
    return "\n".join(lines) or "no problems"


def format_counts(counts: dict[str, SplitCount], coverage: BoxCoverage) -> str:
    """A line for each class: its objects in each split, and the share of those of train out of reach."""
    splits = list(counts)
    header = ["class", *splits, "out of reach"]
    rows = [
        [name, *(str(counts[split].objects[name]) for split in splits), str(share)]
        for name, share in coverage.by_class.items()
    ]
    rows.append(["all objects", *(str(sum(counts[split].objects.values())) for split in splits), str(coverage.all)])
    rows.append(["images", *(str(counts[split].images) for split in splits), ""])
    rows.append(["without objects", *(str(counts[split].background) for split in splits), ""])
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    table = [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]).rstrip()
        for row in [header, *rows]
    ]
    rule = "-" * max(map(len, table))
    return "\n".join([table[0], rule, *table[1:-3], rule, *table[-3:]])


def format_box_coverage(coverage: BoxCoverage, config: Config) -> str:
    layout = config.model.default_boxes
    lines = [
        f"Out of reach: no default box has an IoU of {config.match.iou_threshold:g} with the object "
        f"({config.name}: {layout.count} boxes, {layout.image_size} px). Such an object is trained on one box alone.",
        "  by size at the network's input: "
        + ", ".join(f"{name} {share} of {share.objects}" for name, share in coverage.by_size.items() if share.objects),
        "  with other boxes: " + ", ".join(f"{name} {share}" for name, share in coverage.published.items()),
        f"  {coverage.advice}",
    ]
    return "\n".join(lines)


def write_tables(
    out: Path, counts: Mapping[str, SplitCount], coverage: BoxCoverage, problems: Sequence[Problem]
) -> None:
    """Writes problems.csv and check.json into the existing folder ``out``."""
    rows = io.StringIO(newline="")
    writer = csv.writer(rows, lineterminator="\n")
    writer.writerow(("severity", "kind", "file", "problem"))
    writer.writerows((p.kind.severity.value, p.kind.title, p.file, p.text) for p in problems)
    write_text(out / "problems.csv", rows.getvalue())
    text = json.dumps(to_json(counts, coverage, problems), indent=2)
    write_text(out / "check.json", text + "\n")
