"""Format the costs of compiled programs as text or as a table, with an upper bound of the speed."""

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

from tabulate import tabulate

from ssd_jax.aot.compiled import Collective, Costs, count_array_bytes
from ssd_jax.aot.programs import Program, Report
from ssd_jax.aot.targets import GIB, Chip, parse_target

TITLES: dict[Program, str] = {"train": "training step", "detect": "detection program"}


class Roofline(NamedTuple):
    """Lower bound of the time that one device needs for a program, according to the roofline model.

    Source: Williams et al., Roofline, CACM 52(4), 2009. The time of memory traffic is computed from XLA's count of the
    bytes that each operation reads and writes. This count includes data that stay in the chip's fast memory between two
    operations, so the bound may be too high.
    """

    compute: float
    """Time of the arithmetic in seconds: FLOPs divided by the peak FLOP/s of the chip."""
    traffic: float | None
    """Time of the memory traffic in seconds: bytes accessed divided by the memory bandwidth. None if the compiler
    reports no bytes."""

    @property
    def seconds(self) -> float:
        """Lower bound of the time in seconds: the longer of the two times."""
        return max(self.compute, self.traffic or 0.0)


def compute_roofline(costs: Costs, chip: Chip, dtype: str) -> Roofline:
    """Return lower bounds of the time that a chip needs for a program.

    FLOPs are counted by the compiler, which counts loop bodies once, and in the jaxpr, where the lengths of most loops
    are known. The larger of the two numbers is used.

    Args:
        costs: Costs of the program.
        chip: Chip that runs the program.
        dtype: Dtype of the convolutions, ``bfloat16`` or ``float32``.
    """
    flops = max(costs.model_flops, costs.flops or 0.0)
    traffic = None if costs.bytes_accessed is None else costs.bytes_accessed / chip.bandwidth
    return Roofline(flops / (chip.bfloat16 if dtype == "bfloat16" else chip.float32), traffic)


def describe_memory_problem(costs: Costs, chip: Chip) -> str | None:
    """Return the text ``does not fit: needs X of Y GiB``, or None if the program fits in the memory of the chip."""
    needed, available = costs.needed_memory, costs.available_memory
    if costs.memory is not None:
        needed, available = costs.memory.peak, chip.memory
        if needed <= available:
            return None
    if needed is None or available is None:
        return "does not fit: the compiler ran out of the device's memory"
    return f"does not fit: needs {needed / GIB:.1f} of {available / GIB:.1f} GiB"


def format_report(report: Report) -> str:
    """Return the text of a report."""
    chip = parse_target(report.target).chip
    head = (
        f"{report.config} on {report.target}: {report.devices} x {chip.title}, {report.image_size} px, "
        f"{report.num_classes} classes with background, {report.dtype}, {report.batch_size} images, "
        f"{report.images_per_device} per device\n"
        f"jax {report.jax}, {report.compiler}. Costs of one device:"
    )
    return "\n\n".join([head, *(_format_program(report, chip, name) for name in report.programs)])


def _format_program(report: Report, chip: Chip, name: Program) -> str:
    costs = report.programs[name]
    rows = [("FLOPs", _format_flops(costs))]
    if costs.bytes_accessed is not None:
        rows.append(("bytes accessed", f"{costs.bytes_accessed / 1e9:.1f} GB"))
    problem = describe_memory_problem(costs, chip)
    if costs.memory is not None:
        parts = costs.memory
        sizes = (parts.arguments, parts.temporaries, parts.outputs, parts.aliased)
        split = "arguments {:.2f} + temporaries {:.2f} + outputs {:.2f} - aliased {:.2f}".format(
            *(n / GIB for n in sizes)
        )
        note = "; cuDNN's workspace is not included" if chip.platform == "cuda" else ""
        rows.append(("memory", f"{parts.peak / GIB:.2f} GiB of {chip.memory / GIB:.1f}: {split}{note}"))
        rows.append(("collectives", _format_collectives(costs.collectives)))
        rows.append(("host transfers", ", ".join(costs.host_transfers) or "none"))
    rows.append(("max. images/s", problem or _format_roofline(report, chip, costs)))
    title = f"{TITLES[name]} (compiled in {costs.compile_seconds:.0f} s)"
    table = tabulate(rows, tablefmt="plain", disable_numparse=True)
    return f"{title}\n{textwrap.indent(table, '  ')}"


def _format_flops(costs: Costs) -> str:
    model = f"{costs.model_flops:.4g} of convolutions and matrix products"
    if costs.flops is None:
        return f"{model}, counted in the program; the compiler reports none"
    return f"{costs.flops:.4g}, {costs.flops / costs.model_flops:.3f} times the {model}"


def _format_collectives(collectives: Sequence[Collective]) -> str:
    if not collectives:
        return "none"
    lines = []
    for c in sorted(collectives, key=lambda c: -c.size):
        largest = max(c.arrays, key=count_array_bytes)
        more = f" and {len(c.arrays) - 1} more" if len(c.arrays) > 1 else ""
        lines.append(f"{c.kind} of {_format_size(c.size)}: {largest}{more}")
    return "\n".join(lines)


def _format_size(size: float) -> str:
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}"
    return f"{size:.0f} bytes"


def _format_roofline(report: Report, chip: Chip, costs: Costs) -> str:
    limit = compute_roofline(costs, chip, report.dtype)
    compute = f"FLOPs take {limit.compute * 1e3:.1f} ms"
    traffic = (
        "the time of memory traffic is not known"
        if limit.traffic is None
        else f"bytes take {limit.traffic * 1e3:.1f} ms"
    )
    rate = report.images_per_device / limit.seconds
    total = f", {rate * report.devices:.0f} on all {report.devices}" if report.devices > 1 else ""
    return f"{rate:.0f}{total}: {compute}, {traffic}"


_HEADER = (
    "network", "images per device", "devices", "program", "FLOPs", "bytes accessed", "memory", "exchanged",
    "max. images/s per device",
)  # fmt: skip


def format_table(reports: Sequence[Report]) -> str:
    """Return a Markdown table of the costs for one device, with a row for each program of each report."""
    rows = [_make_table_row(report, name) for report in reports for name in report.programs]
    return tabulate(rows, _HEADER, tablefmt="github", disable_numparse=True)


def _make_table_row(report: Report, name: Program) -> tuple[str, ...]:
    costs, chip = report.programs[name], parse_target(report.target).chip
    limit = compute_roofline(costs, chip, report.dtype)
    problem, memory = describe_memory_problem(costs, chip), costs.memory
    flops = f"{costs.model_flops:.3g} (in the program)" if costs.flops is None else f"{costs.flops:.3g}"
    return (
        f"SSD{report.image_size}, {report.num_classes} classes, {report.dtype}",
        str(report.images_per_device),
        f"{report.devices} x {chip.title}",
        TITLES[name],
        flops,
        "unknown" if costs.bytes_accessed is None else f"{costs.bytes_accessed / 1e9:.1f} GB",
        problem or ("" if memory is None else f"{memory.peak / GIB:.1f} GiB"),
        "" if memory is None else _format_size(sum(c.size for c in costs.collectives)),
        "" if problem else f"{report.images_per_device / limit.seconds:.0f}",
    )
