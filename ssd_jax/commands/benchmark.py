"""``ssd-jax benchmark``: compare the speed, memory and accuracy of runs and exported files."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import tyro

from ssd_jax.commands.options import initialize_jax, parse_options
from ssd_jax.errors import UserError, escape_text
from ssd_jax.runtime.progress import hide_progress

if TYPE_CHECKING:
    from ssd_jax.export.benchmark import BenchmarkRow


@dataclass(frozen=True)
class BenchmarkOptions:
    """Compare runs, models and exported files: milliseconds per image, memory, size and, with --data.root, mAP."""

    models: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN_OR_FILE")]
    """Run folders, model folders, weight files, exported files, or names of models."""
    batch: tuple[int, ...] = (1, 8)
    """Numbers of images of a batch."""
    rounds: int = 7
    """Number of rounds, in each of which all take their turn. The median is printed."""
    data_root: Annotated[str | None, tyro.conf.arg(name="data.root")] = None
    """Data set on which the mAP is measured."""
    split: str | None = None
    """Split of the data set. Default: as for evaluate."""
    quiet: bool = False
    """Show no progress: print only results, warnings and errors."""


def run(argv: Sequence[str]) -> int:
    """Run ``ssd-jax benchmark`` with the arguments ``argv``, and return the exit code.

    It is 1 if something could not be measured for another reason than a missing package.
    """
    options = parse_options(BenchmarkOptions, "benchmark", argv)
    if not options.models:
        raise UserError("benchmark RUN_OR_FILE: name at least one run, model or file")
    if options.rounds < 1 or min(options.batch, default=0) < 1:
        raise UserError("--rounds and --batch: expected numbers of at least 1")
    initialize_jax()
    import jax

    from ssd_jax.export.benchmark import benchmark_models

    with hide_progress(options.quiet):
        rows, skipped = benchmark_models(
            options.models, batch_sizes=options.batch, rounds=options.rounds, data_root=options.data_root,
            split=options.split,
        )  # fmt: skip
    for name, reason, _ in skipped:
        print(escape_text(f"Skipped: {reason}" if name in reason else f"Skipped: {name}: {reason}"))
    if not rows:
        raise UserError("nothing could be measured")
    print(format_rows(rows))
    print(f"Median of {options.rounds} rounds; jax on {jax.devices()[0].device_kind}; memory of a process of its own.")
    failed = [entry.name for entry in skipped if not entry.is_package_missing]
    if failed:
        print(f"error: not measured: {', '.join(map(escape_text, failed))}", file=sys.stderr)
    return int(bool(failed))


def format_rows(rows: "Sequence[BenchmarkRow]") -> str:
    """Return a table with a row for each run or file. Columns that no row has are left out."""
    from tabulate import tabulate

    table: list[dict[str, object]] = [
        {
            "": escape_text(row.name),
            **{f"ms per image, batch {size}": f"{value:.1f}" for size, value in row.milliseconds.items()},
            "memory, MB": None if row.memory is None else f"{row.memory:.0f}",
            "size, MB": f"{row.size:.1f}",
            "mAP": None if row.voc_map is None else f"{row.voc_map:.4f}",
            "AP .50:.95": None if row.coco_ap is None else f"{row.coco_ap:.4f}",
        }
        for row in rows
    ]
    names = [name for name in table[0] if any(row[name] is not None for row in table)]
    values = [[row[name] for name in names] for row in table]
    return tabulate(
        values, names, missingval="-", disable_numparse=True, colalign=("left", *["right"] * (len(names) - 1))
    )
