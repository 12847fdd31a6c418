"""``ssd-jax evaluate``."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tqdm.auto import tqdm

from ssd_jax import files
from ssd_jax.commands.options import prepare
from ssd_jax.data.run_splits import describe_split, open_evaluation_split, with_data_root
from ssd_jax.data.source import Source
from ssd_jax.evaluation import evaluator, submission
from ssd_jax.inference import detector
from ssd_jax.inference.detections import ImageDetections
from ssd_jax.inference.program import make_predict_fn
from ssd_jax.metrics.average_precision import format_table
from ssd_jax.report import page, pictures
from ssd_jax.runtime import distributed, sharding
from ssd_jax.runtime.distributed_options import DistributedOptions


@dataclass(frozen=True)
class EvaluateOptions:
    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of a run."""
    split: str | None = None
    """Default: the run's data.test_split, or data.val_split where the data has no such split."""
    checkpoint: Literal["best", "last"] = "best"
    """best: highest val mAP (area) while training."""
    data_root: Annotated[str | None, tyro.conf.arg(name="data.root")] = None
    """Other data than the run's, or the same at another place."""
    strict: bool = False
    """Stop at an image that can't be read; else its objects count as missed."""
    results: bool = False
    """Also write the detections into RUN/results as COCO's server takes them (of COCO data), else as VOC's does.
    Done anyway where the split has no boxes to measure on."""
    report: bool = False
    """Write report.html as well: one page with curves, intervals, mix-ups and the worst images."""
    hosts: Annotated[DistributedOptions, tyro.conf.arg(name="")] = field(default_factory=DistributedOptions)


def evaluate(argv: Sequence[str]) -> None:
    """evaluate RUN [--report]: VOC's mAP and COCO's twelve numbers; the table on the screen, all in metrics.json."""
    options = tyro.cli(EvaluateOptions, args=list(argv), prog="evaluate", description=evaluate.__doc__)
    prepare(options.hosts)
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


def write_results(run: Path, split: str, source: Source, found: Sequence[ImageDetections]) -> None:
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
    lines = [format_table(measured), "", "COCO protocol:"]
    for key, label in COCO_LINES:
        value = measured[key]
        lines.append(f"  {label:34} {'-' if value is None else f'{value:.4f}'}")
    return "\n".join(lines)
