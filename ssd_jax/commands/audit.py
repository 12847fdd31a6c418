"""``ssd-jax audit``: find mistakes in the annotations of a split with a detector."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ssd_jax.commands.options import initialize_jax, parse_options
from ssd_jax.runtime.progress import hide_progress


@dataclass(frozen=True)
class AuditOptions:
    """List what a detector doubts in the annotations: missing labels, boxes in which nothing is found, other classes,
    loose boxes and duplicates, best first. Write a page with pictures, a table, and annotations with corrections."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder, model folder, weight file, or name of a model (`ssd-jax models` lists them)."""
    split: str | None = None
    """Split to audit. Default: data.train_split of the run."""
    folds: int = 0
    """Train this many networks with the settings of the run, and judge each image by one that was not trained on it.
    0: judge all images by the run, which has learned the mistakes of the images that it was trained on."""
    steps: int | None = None
    """Training steps of each network of --folds. Default: as many as the run."""
    data_root: Annotated[str | None, tyro.conf.arg(name="data.root")] = None
    """Folder of the data set if it has moved, or another data set."""
    checkpoint: Literal["best", "last"] = "best"
    """Checkpoint to load. best: the one with the highest mAP (area) on the val split. last: the latest one."""
    out: Path | None = None
    """Folder for audit.html, doubts.csv, proposed.json and the networks of --folds. Default: RUN/audit, or
    RUN/audit_SPLIT for another split than train."""
    quiet: bool = False
    """Show no progress: print only results, warnings and errors."""


def run(argv: Sequence[str]) -> None:
    """Run ``ssd-jax audit`` with the arguments ``argv``."""
    options = parse_options(AuditOptions, "audit", argv)
    initialize_jax()
    from ssd_jax.auditing.run import audit  # not above, so that --help is fast

    with hide_progress(options.quiet):
        audit(
            options.run,
            options.split,
            data_root=options.data_root,
            checkpoint=options.checkpoint,
            folds=options.folds,
            steps=options.steps,
            out=options.out,
        )
