"""Measure how many of the mistakes that are made in annotations on purpose an audit finds.

    python -m benchmarks.label_audit BCCD --out runs/label_audit
    python -m benchmarks.label_audit BCCD --out runs/label_audit_test --split test --run blood-cells

1. Remove a part of the boxes at random, and give another part another class, in memory. With `--moved` and `--added`,
   move other boxes by a quarter of their size, and add boxes at empty places.
2. Train the networks of a cross-validation on the damaged annotations, and compare each image with the detections of
   the network that was not trained on it.
3. Count how many of the first doubts are these mistakes, and how many of the mistakes are among the first doubts.
4. Compare the same detections with the annotations as they are. No network has learned an image that it judges.
5. With `--itself`, compare each image with the detections of the network of another fold, which has learned it.

The tables are printed, and written with the pages of both audits. If the command is interrupted, the same command
continues it. With `--run`, a trained network judges instead, without step 2. Mistakes that the data set had before
count as wrong doubts here, so the precision is a lower bound.
"""

import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import tyro
from tabulate import tabulate

from ssd_jax import files
from ssd_jax.auditing.folds import describe_cost, detect_in_folds, plan_folds
from ssd_jax.auditing.proposals import write_doubts_csv
from ssd_jax.commands.main import print_warnings_to_stderr
from ssd_jax.commands.options import initialize_jax
from ssd_jax.config import Config
from ssd_jax.data.formats.open import open_source
from ssd_jax.data.run_splits import with_data_root
from ssd_jax.data.source import Annotation, FolderSource
from ssd_jax.errors import UserError
from ssd_jax.evaluation.run import predict_with_model
from ssd_jax.inference.detections import ImageDetections
from ssd_jax.metrics.diagnosis import BACKGROUND_IOU, IOU
from ssd_jax.metrics.doubts import Doubt, DoubtKind, find_doubts
from ssd_jax.metrics.voc_matching import compute_inclusive_iou
from ssd_jax.model_zoo.opening import open_detector
from ssd_jax.report.audit_page import write_audit_page
from ssd_jax.runs.config_file import load_config


@dataclass(frozen=True)
class Options:
    data: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """Folder of a data set, in any format that train.py reads."""
    out: Path
    """Folder for the networks and the results."""
    config: str = "own_data"
    """Config of the networks."""
    split: str = "trainval"
    """Split to damage and to audit."""
    folds: int = 3
    """Number of networks."""
    steps: int = 400
    """Number of training steps of each network."""
    removed: float = 0.1
    """Probability that a box is removed."""
    swapped: float = 0.03
    """Probability that a box gets another class."""
    moved: float = 0.0
    """Probability that another box is moved by a quarter of its width and of its height."""
    added: float = 0.0
    """Probability that a box of the same class and size as another one is added at an empty place of its image."""
    seed: int = 0
    """Seed of the damage."""
    first: int = 100
    """Number of doubts to count."""
    run: str = ""
    """Run or model that judges instead of networks that are trained for it. It must not have learned the split."""
    itself: bool = False
    """Also exchange the networks, so that each image is judged by one that has learned it, for a comparison."""


class Damage(NamedTuple):
    """Mistakes that were made in the annotations of a split."""

    annotations: list[Annotation]
    """The damaged annotations."""
    removed: dict[int, Annotation]
    """Dict from the position of each image to its annotation with the removed objects only."""
    changed: dict[tuple[int, int], str]
    """Dict from the positions of an image and of an object in its damaged annotation to "swapped", "moved" or "added",
    for each object that is wrong."""


def select_objects(annotation: Annotation, kept: np.ndarray) -> Annotation:
    """Return an annotation with some of its objects."""
    per_object = ("boxes_px", "labels", "difficult", "crowd", "area_px")
    return annotation._replace(**{name: getattr(annotation, name)[kept] for name in per_object})


def damage_annotations(
    annotations: Sequence[Annotation],
    classes: int,
    removed: float,
    swapped: float,
    seed: int,
    *,
    moved: float = 0.0,
    added: float = 0.0,
) -> Damage:
    """Remove objects, give others another class, move others, and add boxes at empty places, each with a probability.

    Args:
        annotations: Annotation of each image.
        classes: Number of classes. A new class is drawn uniformly from the others.
        removed: Probability that an object is removed.
        swapped: Probability that an object gets another class.
        seed: Seed of the draws.
        moved: Probability that an object that is neither removed nor swapped is moved.
        added: Probability that a box of the size of an object is added to its image.
    """
    rng, box_rng = np.random.default_rng(seed), np.random.default_rng((seed, 1))
    damage = Damage([], {}, {})
    for i, annotation in enumerate(annotations):
        draw = rng.random(len(annotation.labels))
        shift = rng.integers(1, max(2, classes), len(draw))
        is_swapped = (draw >= removed) & (draw < removed + swapped) & (classes > 1)
        labels = np.where(is_swapped, (annotation.labels - 1 + shift) % classes + 1, annotation.labels)
        kept = draw >= removed
        damaged = annotation._replace(labels=labels.astype(np.int32))
        damage.removed[i] = select_objects(annotation, ~kept)
        names = np.where(is_swapped, "swapped", "")[kept].tolist()
        moved_annotation, names = move_boxes(select_objects(damaged, kept), names, moved, box_rng)
        complete, names = add_boxes(moved_annotation, names, annotation, added, box_rng)
        damage.annotations.append(complete)
        damage.changed.update({(i, j): name for j, name in enumerate(names) if name})
    return damage


def move_boxes(
    annotation: Annotation, names: list[str], probability: float, rng: np.random.Generator
) -> tuple[Annotation, list[str]]:
    """Move boxes by a quarter of their width and of their height, which leaves an IoU of 0.39.

    Args:
        annotation: Annotation of an image.
        names: Name of the mistake of each object, "" for none. Only objects without a mistake are moved.
        probability: Probability that an object is moved.
        rng: Generator of the draws.

    Returns:
        The annotation, and the names with "moved" for each moved object.
    """
    boxes, names = annotation.boxes_px.copy(), list(names)
    for j in np.flatnonzero(rng.random(len(names)) < probability).tolist():
        if not names[j]:
            boxes[j] += np.tile((boxes[j, 2:] - boxes[j, :2]) / 4 * rng.choice([-1, 1], 2), 2)
            names[j] = "moved"
    return annotation._replace(boxes_px=boxes), names


def add_boxes(
    annotation: Annotation, names: list[str], original: Annotation, probability: float, rng: np.random.Generator
) -> tuple[Annotation, list[str]]:
    """Add boxes at places whose IoU with all boxes is below 0.1.

    Args:
        annotation: Damaged annotation of an image.
        names: Name of the mistake of each of its objects, "" for none.
        original: The annotation without damage, whose boxes are avoided as well.
        probability: Probability that a box with the class and size of an object of ``annotation`` is added. If no empty
            place is found for it in 50 draws, it is left out.
        rng: Generator of the draws.

    Returns:
        The annotation, and the names with "added" for each added object.
    """
    occupied = np.concatenate([annotation.boxes_px, original.boxes_px])
    copied, boxes = [], []
    for j in np.flatnonzero(rng.random(len(names)) < probability).tolist():
        size = annotation.boxes_px[j, 2:] - annotation.boxes_px[j, :2]
        for corner in rng.random((50, 2)) * np.maximum((annotation.width, annotation.height) - size, 0):
            box = np.array([[*corner, *(corner + size)]], np.float32)
            if compute_inclusive_iou(box, occupied).max() < BACKGROUND_IOU:
                occupied = np.concatenate([occupied, box])
                copied.append(j)
                boxes.append(box[0])
                break
    every = np.array([*range(len(names)), *copied], int)
    complete = select_objects(annotation, every)
    complete.boxes_px[len(names) :] = np.reshape(boxes, (-1, 4))
    return complete, [*names, *["added"] * len(copied)]


def find_hits(
    doubts: Sequence[Doubt], detections: Sequence[ImageDetections], damage: Damage
) -> list[tuple[str, int, int] | None]:
    """Return the mistake that each doubt names, or None if it names none that was made on purpose.

    A missing label names a removed object of its class if their IoU is at least 0.5 and no doubt before names it. Every
    other doubt names the mistake of its object, if there is one.

    Returns:
        ("removed", "swapped", "moved" or "added", image, object) or None for each doubt.
    """
    hits: list[tuple[str, int, int] | None] = []
    for doubt in doubts:
        hit = None
        if doubt.kind is DoubtKind.MISSING and doubt.detection is not None:
            removed, found = damage.removed[doubt.image], detections[doubt.image]
            iou = compute_inclusive_iou(found.boxes_px[[doubt.detection]], removed.boxes_px)[0]
            fits = np.flatnonzero((iou >= IOU) & (removed.labels == found.labels[doubt.detection])).tolist()
            named = [("removed", doubt.image, j) for j in sorted(fits, key=lambda j: -iou[j])]
            hit = next((name for name in named if name not in hits), None)
        elif doubt.object_index is not None and (doubt.image, doubt.object_index) in damage.changed:
            hit = damage.changed[doubt.image, doubt.object_index], doubt.image, doubt.object_index
        hits.append(hit)
    return hits


def make_results(
    doubts: Sequence[Doubt], hits: Sequence[tuple[str, int, int] | None], damage: Damage, first: int
) -> dict[str, Any]:
    """Return the precision of the first doubts by kind, and the recall of the mistakes by their number of doubts."""
    names = list(damage.changed.values())
    totals = {"removed": sum(len(a.labels) for a in damage.removed.values()), "swapped": names.count("swapped")}
    totals |= {name: names.count(name) for name in ("moved", "added") if name in names}
    by_kind = {
        kind.value: {
            "doubts": sum(doubt.kind is kind for doubt in doubts[:first]),
            "made": sum(hit is not None and d.kind is kind for d, hit in zip(doubts[:first], hits, strict=False)),
            "expected": round(sum(doubt.score for doubt in doubts[:first] if doubt.kind is kind), 1),
        }
        for kind in DoubtKind
    }
    lengths = {"first": first, "as many as mistakes": sum(totals.values()), "all": len(doubts)}
    recall = {
        name: {"doubts": min(length, len(doubts))}
        | {kind: sum(hit is not None and hit[0] == kind for hit in hits[:length]) for kind in totals}
        for name, length in lengths.items()
    }
    return {"mistakes": totals, "first": by_kind, "found": recall}


def format_results(results: dict[str, Any]) -> str:
    """Return the results as two tables."""
    rows = [[kind, *(row[key] for key in ("doubts", "made", "expected"))] for kind, row in results["first"].items()]
    rows.append(["all", *(round(sum(row[k] for row in rows), 1) for k in (1, 2, 3))])
    totals = results["mistakes"]
    found = [
        [name, row["doubts"], *(f"{row[kind]} ({row[kind] / max(1, total):.2f})" for kind, total in totals.items())]
        for name, row in results["found"].items()
    ]
    header = ["doubts", "number", *(f"{kind} ({total})" for kind, total in totals.items())]
    return "\n\n".join(
        [
            tabulate(
                rows, ["first doubts", "number", "made on purpose", "expected to be wrong"], disable_numparse=True
            ),
            tabulate(found, header, disable_numparse=True),
        ]
    )


def measure(options: Options) -> None:
    """Make mistakes, audit the annotations, and print and write the results."""
    started = time.perf_counter()
    if options.run and options.itself:
        raise UserError("--itself compares networks that are trained for the audit: leave out --run")
    config = with_data_root(load_config(options.config), str(options.data))
    config, source = _open(config, options)
    annotations = list(source.annotations())
    damage = damage_annotations(
        annotations, len(source.class_names), options.removed, options.swapped, options.seed,
        moved=options.moved, added=options.added,
    )  # fmt: skip
    damaged = FolderSource(damage.annotations, source.class_names)
    plan = plan_folds(config, damaged, options.folds, options.out / "networks", options.steps)
    unread: dict[int, str] = {}
    if options.run:
        model = open_detector(options.run)
        detections = predict_with_model(model, model.config, damaged, "best", unread).detections
        judge = f"Judged by {model.short_name}."
    else:
        print(describe_cost(plan, None))
        detections = detect_in_folds(plan, damaged, unread)
        judge = f"Cross-validated: {options.folds} networks of {options.steps} steps, trained on damaged annotations."
    doubts = _write_audit("damaged", options, damaged, detections, unread, judge)
    results = make_results(doubts, find_hits(doubts, detections, damage), damage, options.first)
    files.write_text(options.out / "results.json", json.dumps(results, indent=2) + "\n")
    print(format_results(results))
    doubts = _write_audit("as_it_is", options, source, detections, unread, judge)
    counts = {kind.value: sum(d.kind is kind for d in doubts[: options.first]) for kind in DoubtKind}
    print(f"\nAs it is: {len(doubts)} doubts, of the first {options.first}: {counts}")
    if options.itself:
        detections = detect_in_folds(plan, damaged, unread, shift=1)
        judge = "Each image judged by a network that has learned its damaged annotations."
        doubts = _write_audit("itself", options, damaged, detections, unread, judge)
        results = make_results(doubts, find_hits(doubts, detections, damage), damage, options.first)
        print(f"\n{judge}\n\n{format_results(results)}")
    print(f"{(time.perf_counter() - started) / 60:.1f} minutes, results in {options.out}")


def _write_audit(
    name: str,
    options: Options,
    source: FolderSource,
    detections: Sequence[ImageDetections],
    unread: dict[int, str],
    judge: str,
) -> list[Doubt]:
    """Find the doubts about a split, write them as a page and a table into the folder ``name``, and return them."""
    annotations = list(source.annotations())
    doubts = find_doubts(detections, annotations, frozenset(unread))
    folder = options.out / name
    folder.mkdir(parents=True, exist_ok=True)
    write_audit_page(folder / "audit.html", options.data.name, options.split, source, detections, doubts, judge)
    write_doubts_csv(folder / "doubts.csv", doubts, annotations, detections, source.class_names)
    return doubts


def _open(config: Config, options: Options) -> tuple[Config, FolderSource]:
    """Return the config with the class names of the data set, and the split to audit, held in memory."""
    source = open_source(config.data, options.split)
    model = dataclasses.replace(config.model, class_names=tuple(source.class_names))
    data = dataclasses.replace(config.data, train_split=options.split)
    train = dataclasses.replace(config.train, steps=options.steps, epochs=None, steps_range=None)
    copied = FolderSource(list(source.annotations()), source.class_names)
    return dataclasses.replace(config, model=model, data=data, train=train), copied


def main(argv: Sequence[str]) -> int:
    options = tyro.cli(Options, args=list(argv), prog="label_audit", description=__doc__)
    initialize_jax()
    try:
        with print_warnings_to_stderr():
            measure(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
