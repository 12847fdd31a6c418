"""Audit of the annotations of a split: the function behind ``ssd-jax audit`` and ``ssd_jax.audit``."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from tabulate import tabulate

from ssd_jax import files
from ssd_jax.auditing.folds import describe_cost, detect_in_folds, plan_folds
from ssd_jax.auditing.proposals import write_doubts_csv, write_proposals
from ssd_jax.data.run_splits import open_split, print_split, with_data_root
from ssd_jax.data.source import Annotation
from ssd_jax.errors import UserError, escape_text
from ssd_jax.evaluation.run import predict_with_model
from ssd_jax.inference.detections import ImageDetections
from ssd_jax.metrics.doubts import Doubt, describe_doubt, find_doubts
from ssd_jax.model_zoo.opening import OpenedModel, open_detector
from ssd_jax.report.audit_page import count_kinds, write_audit_page
from ssd_jax.runtime.progress import show_progress

PRINTED_DOUBTS = 10
"""Number of doubts that are printed."""


def audit(
    run: str | Path,
    split: str | None = None,
    *,
    data_root: str | None = None,
    checkpoint: Literal["best", "last"] = "best",
    folds: int = 0,
    steps: int | None = None,
    out: str | Path | None = None,
) -> list[Doubt]:
    """List what a detector doubts in the annotations of a split.

    Print the first doubts and the number of each kind, and write into a folder:

    * ``audit.html``: a page with pictures of the first doubts,
    * ``doubts.csv``: all doubts,
    * ``proposed.json``: all annotations with proposed corrections, in COCO's format,
    * ``networks/``: the networks of a cross-validation.

    The annotations are compared with the detections of the run. If it was trained on them, it repeats some of their
    mistakes. A cross-validation does not: each image is judged by a network that was trained on other images only.

    Args:
        run: Run folder, model folder, or anything else that `ssd_jax.load` takes.
        split: Name of the split. None: the run's ``data.train_split``.
        data_root: Data set to use instead of that of the run, or the new path of the same one.
        checkpoint: "best" or "last", as for `ssd_jax.load`. A cross-validation uses only the config of the run.
        folds: Number of networks of a cross-validation, which are trained with the config of the run. 0: none.
        steps: Number of training steps of each of these networks. None: as many as the run.
        out: Folder for the files. None: ``audit`` or ``audit_<split>`` in the run folder, if ``run`` is one.

    Returns:
        The doubts, best first.

    Raises:
        UserError: If the run or the split cannot be opened, the split has no annotations, a network cannot be trained,
            or a file cannot be written.
    """
    model = open_detector(run)
    config = model.config if data_root is None else with_data_root(model.config, data_root)
    split = config.data.train_split if split is None else split
    source = open_split(config, split)
    if not source.annotated:
        raise UserError(f"{config.data.root}: the split '{split}' has no annotations that could be audited")
    if steps is not None and not folds:
        raise UserError("--steps is the length of the networks of a cross-validation: add --folds 5")
    print_split(split, source)
    folder = _make_folder(model, split, out)
    unread: dict[int, str] = {}
    if folds:
        plan = plan_folds(config, source, folds, folder / "networks", steps)
        print(describe_cost(plan, model.folder))
        if config.train.pretrained:
            print(
                f"  note: the networks start from {escape_text(config.train.pretrained)}, as the run did. If it was "
                "trained on these images, they repeat the mistakes of its annotations"
            )
        detections = detect_in_folds(plan, source, unread)
        judge = (
            f"Cross-validated: {folds} networks were trained for {plan.config.train.known_steps:,} steps, and each "
            "image was judged by the one that was not trained on it."
        )
    else:
        detections, step, _ = predict_with_model(model, config, source, checkpoint, unread)
        judge = f"Judged by the checkpoint of step {step:,}."
        if split == config.data.train_split:
            judge += (
                " A network repeats some mistakes of the annotations that it was trained on; with --folds 5, none is "
                "judged by a network that has learned it."
            )
    annotations = list(source.annotations())
    doubts = find_doubts(detections, annotations, frozenset(unread))
    print(judge)
    print(format_doubts(doubts, annotations, detections, source.class_names))
    with show_progress("drawing doubts"):
        write_audit_page(folder / "audit.html", model.short_name, split, source, detections, doubts, judge)
    write_doubts_csv(folder / "doubts.csv", doubts, annotations, detections, source.class_names)
    write_proposals(folder / "proposed.json", source, doubts, detections, config.data.root)
    print(f"Written to {folder}: audit.html (to open in a browser), doubts.csv, proposed.json (COCO, with corrections)")
    return doubts


def format_doubts(
    doubts: Sequence[Doubt],
    annotations: Sequence[Annotation],
    detections: Sequence[ImageDetections],
    class_names: Sequence[str],
) -> str:
    """Return a table with the number of doubts of each kind, and lines about the first doubts.

    Args:
        doubts: Doubts, best first.
        annotations: Annotation of each image.
        detections: Detections of each image.
        class_names: Names of the labels 1 to C.
    """
    if not doubts:
        return "No doubts. A detector that finds little doubts little: `ssd-jax evaluate` shows how much it finds."
    rows = [[row.kind.value, str(row.doubts), f"{row.expected:.1f}"] for row in count_kinds(doubts)]
    table = tabulate(rows, ["doubts", "number", "expected to be wrong"], colalign=("left", "right", "right"))
    lines = [table, "", "First doubts, with their scores:"]
    for doubt in doubts[:PRINTED_DOUBTS]:
        annotation = annotations[doubt.image]
        text = describe_doubt(doubt, annotation, detections[doubt.image], class_names)
        lines.append(
            f"  {doubt.score:.2f}  {doubt.kind.value}: {escape_text(annotation.image_id)}: {escape_text(text)}"
        )
    return "\n".join([*lines, ""])


def _make_folder(model: OpenedModel, split: str, out: str | Path | None) -> Path:
    """Return the folder for the files, after creating it and checking that files can be written into it."""
    if out is not None:
        folder = files.make_user_path(out)
    elif model.folder is not None:
        is_train = split == model.config.data.train_split
        folder = model.folder / ("audit" if is_train else f"audit_{files.make_safe_file_name(split)}")
    else:
        raise UserError(f"{model.name}: name a folder for the files with --out, because this is not a run folder")
    with files.convert_write_errors(folder, "Name another folder for the files with --out."):
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    return folder
