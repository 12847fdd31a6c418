"""``ssd-jax evaluate``: compute mAP and COCO metrics of a run."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from ssd_jax import files
from ssd_jax.commands.options import initialize_jax, parse_options
from ssd_jax.runtime.distributed_options import DistributedOptions


@dataclass(frozen=True)
class EvaluateOptions:
    """Compute mAP as in PASCAL VOC and the metrics of COCO. Print a table, and write all numbers to metrics.json."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder."""
    split: str | None = None
    """Split to evaluate on. Default: the run's data.test_split, or data.val_split if there is no such split."""
    checkpoint: Literal["best", "last"] = "best"
    """best: highest mAP (area) on the val split."""
    data_root: Annotated[str | None, tyro.conf.arg(name="data.root")] = None
    """Folder of the data set, if it moved, or another data set."""
    strict: bool = False
    """Stop at an unreadable image. By default, it counts as having no detections."""
    results: bool = False
    """Also write the detections to RUN/results, in the format of COCO's server for COCO data, else in that of VOC's.
    This is always done if the split has no annotations."""
    report: bool = False
    """Also write report.html: curves, confidence intervals, confusions and the worst images."""
    distributed: Annotated[DistributedOptions, tyro.conf.arg(name="")] = field(default_factory=DistributedOptions)


def run(argv: Sequence[str]) -> None:
    """Run the command."""
    options = parse_options(EvaluateOptions, "evaluate", argv)
    initialize_jax(options.distributed)
    evaluate(options)


def evaluate(options: EvaluateOptions) -> None:
    """Evaluate, print and write the metrics."""
    from tqdm.auto import tqdm

    from ssd_jax.data.run_splits import describe_split, open_evaluation_split, with_data_root
    from ssd_jax.evaluation import evaluator, submission
    from ssd_jax.inference import detector
    from ssd_jax.inference.program import make_predict_fn
    from ssd_jax.report import page, pictures
    from ssd_jax.runtime import distributed, sharding

    config = detector.read_detector_config(options.run)
    if options.data_root is not None:
        config = with_data_root(config, options.data_root)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, strict=options.strict))
    split, source = open_evaluation_split(config, options.split)
    describe_split(split, source)
    if options.results or not source.annotated:
        submission.check_names(source)  # before all the work
    mesh = sharding.make_mesh()
    params, step = detector.restore_params(options.run, config, options.checkpoint, mesh)
    program = distributed.start_together(make_predict_fn(config, mesh))
    with tqdm(total=len(source), unit="image", dynamic_ncols=True, disable=not distributed.is_primary()) as bar:
        found = evaluator.predict_split(program, params, source, config, mesh, bar.update)
    if not distributed.is_primary():
        return
    if not source.annotated:
        print(f"The split {split} lists images without boxes: there is nothing to measure.")
        write_results(options.run, split, source, found)
        return
    measured = evaluator.compute_metrics(found, source)
    about = {"split": split, "images": len(source), "checkpoint_step": step}
    # What was measured on the test split stays when another is looked at.
    by_default = options.split in (None, config.data.test_split)
    suffix = "" if by_default else f"_{files.safe_file_name(split)}"
    file = options.run / f"metrics{suffix}.json"
    files.write_text(file, json.dumps({**about, **measured}, indent=2) + "\n")
    pictures.write_truth_and_predictions(options.run, split, source, found)
    print(format_results(measured))
    print(
        f"Split {split}, checkpoint of step {step}. Written: {file}, {files.safe_file_name(split)}_truth.jpg and "
        f"{files.safe_file_name(split)}_pred.jpg beside it"
    )
    if options.report:
        page_file = options.run / f"report{suffix}.html"
        page.write_report(page_file, config, source, found, {**about, **measured})
        print(f"Report: {page_file}, to open in a browser")
    if options.results:
        write_results(options.run, split, source, found)


def write_results(run: Path, split: str, source: Any, found: Sequence[Any]) -> None:
    from ssd_jax.evaluation import submission

    files = submission.write_results(run / "results", split, run.resolve().name, source, found)
    print(f"For the server: {files[0]}{f' and {len(files) - 1} others' if len(files) > 1 else ''}")


COCO_LINES = (
    ("coco_ap", "AP @ IoU .50:.95"), ("coco_ap50", "AP @ IoU .50"), ("coco_ap75", "AP @ IoU .75"),
    ("coco_ap_small", "AP, small objects (area < 32^2)"), ("coco_ap_medium", "AP, medium"),
    ("coco_ap_large", "AP, large (area > 96^2)"),
    ("coco_ar1", "AR, 1 detection an image"), ("coco_ar10", "AR, 10"), ("coco_ar100", "AR, 100"),
    ("coco_ar_small", "AR, small"), ("coco_ar_medium", "AR, medium"), ("coco_ar_large", "AR, large"),
)  # fmt: skip


def format_results(measured: Any) -> str:
    """VOC's table by class, then COCO's twelve lines."""
    from ssd_jax.metrics.average_precision import format_table

    lines = [format_table(measured), "", "COCO protocol:"]
    for key, label in COCO_LINES:
        value = measured[key]
        lines.append(f"  {label:34} {'-' if value is None else f'{value:.4f}'}")
    return "\n".join(lines)
