"""``ssd-jax evaluate``: compute mAP and COCO metrics of a run."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ssd_jax.commands.options import initialize_jax, parse_options
from ssd_jax.runtime.distributed_options import DistributedOptions
from ssd_jax.runtime.progress import hide_progress


@dataclass(frozen=True)
class EvaluateOptions:
    """Compute the mAP of PASCAL VOC and the metrics of COCO. Print tables, and write all numbers to metrics.json."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder, model folder, weight file, exported file, name that `ssd-jax models` lists, or hf://USER/NAME."""
    split: str | None = None
    """Split to evaluate on. Default: data.test_split of the run, or data.val_split if there is no test split."""
    checkpoint: Literal["best", "last"] = "best"
    """Checkpoint to load. best: the one with the highest mAP (area) on the val split. last: the latest one."""
    data_root: Annotated[str | None, tyro.conf.arg(name="data.root")] = None
    """Folder of the data set if it has moved, or another data set."""
    strict: bool = False
    """Stop at an unreadable image. By default, such an image counts as having no detections."""
    results: bool = False
    """Also write the detections to RUN/results, in the result format of COCO for COCO data and of VOC for other data.
    This is always done if the split has no annotations."""
    report: bool = False
    """Also write report.html, a page with curves, confidence intervals, confusions and the worst images."""
    out: Path | None = None
    """Folder for all files. Default: the run folder."""
    tile: int | None = None
    """Detect in overlapping tiles of this side in pixels, such as 640, to find small objects in large images. The
    metrics without tiles are printed, too."""
    overlap: float = 0.2
    """Least share of the side of a tile that neighbouring tiles have in common."""
    quiet: bool = False
    """Show no progress: print only results, warnings and errors."""
    distributed: Annotated[DistributedOptions, tyro.conf.arg(name="")] = field(default_factory=DistributedOptions)


def run(argv: Sequence[str]) -> None:
    """Run ``ssd-jax evaluate`` with the arguments ``argv``."""
    options = parse_options(EvaluateOptions, "evaluate", argv)
    if options.tile is not None:
        from ssd_jax.inference.tiles import check_tile_options  # imports numpy

        check_tile_options(options.tile, options.overlap, "--")
    initialize_jax(options.distributed)
    from ssd_jax.evaluation.run import evaluate  # not above, so that --help is fast

    with hide_progress(options.quiet):
        evaluate(
            options.run,
            options.split,
            data_root=options.data_root,
            checkpoint=options.checkpoint,
            results=options.results,
            report=options.report,
            strict=options.strict,
            out=options.out,
            tile=options.tile,
            overlap=options.overlap,
        )
