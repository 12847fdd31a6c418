"""What compiled programs cost, as text and as a table; and how fast they can be at most."""

from collections.abc import Sequence
from typing import NamedTuple

from ssd_jax.aot.compiled import Collective, Costs, array_bytes
from ssd_jax.aot.programs import Program, Report
from ssd_jax.aot.targets import GIB, Chip, parse_target

TITLES: dict[Program, str] = {"train": "training step", "detect": "detection program"}


class Roofline(NamedTuple):
    """The least time that one device needs. Williams et al., Roofline, CACM 52(4), 2009.

    As far as XLA's count of bytes goes: it is of what each operation reads and writes, and does not tell what of
    it stays in the chip's fast memory between two of them.
    """

    compute: float
    """Seconds: FLOPs over the chip's peak."""
    traffic: float | None
    """Seconds: bytes accessed over its memory's bandwidth. None: the compiler does not tell them."""

    @property
    def seconds(self) -> float:
        return max(self.compute, self.traffic or 0.0)


def roofline(costs: Costs, chip: Chip, dtype: str) -> Roofline:
    """dtype: of the convolutions. FLOPs are the compiler's, but at least those that the program asks for, of which
    those of a loop's every pass are known."""
    flops = max(costs.asked_flops, costs.flops or 0.0)
    traffic = None if costs.bytes_accessed is None else costs.bytes_accessed / chip.bandwidth
    return Roofline(flops / (chip.bfloat16 if dtype == "bfloat16" else chip.float32), traffic)


def memory_problem(costs: Costs, chip: Chip) -> str | None:
    """``does not fit: needs X of Y GiB``; None where it fits."""
    needed, available = costs.needed, costs.available
    if costs.memory is not None:
        needed, available = costs.memory.peak, chip.memory
        if needed <= available:
            return None
    if needed is None or available is None:
        return "does not fit: the compiler ran out of the device's memory"
    return f"does not fit: needs {needed / GIB:.1f} of {available / GIB:.1f} GiB"


def text(report: Report) -> str:
    """What the command prints."""
    chip = parse_target(report.target).chip
    head = (
        f"{report.config} on {report.target}: {report.devices} x {chip.title}, {report.image_size} px, "
        f"{report.num_classes} classes with background, {report.dtype}, {report.batch_size} images, "
        f"{report.images_per_device} on each device\n"
        f"jax {report.jax}, {report.compiler}. Of one device:"
    )
    return "\n\n".join([head, *(_program_text(report, chip, name) for name in report.programs)])


def _program_text(report: Report, chip: Chip, name: Program) -> str:
    costs = report.programs[name]
    rows = [("FLOPs", _flops_text(costs))]
    if costs.bytes_accessed is not None:
        rows.append(("bytes accessed", f"{costs.bytes_accessed / 1e9:.1f} GB"))
    problem = memory_problem(costs, chip)
    if costs.memory is not None:
        parts = costs.memory
        sizes = (parts.arguments, parts.temporaries, parts.outputs, parts.aliased)
        split = "arguments {:.2f} + temporaries {:.2f} + outputs {:.2f} - aliased {:.2f}".format(
            *(n / GIB for n in sizes)
        )
        besides = "; cuDNN's workspace comes on top" if chip.platform == "cuda" else ""
        rows.append(("memory", f"{parts.peak / GIB:.2f} GiB of {chip.memory / GIB:.1f}: {split}{besides}"))
        rows.append(("collectives", _collectives_text(costs.collectives)))
        rows.append(("to or from host", ", ".join(costs.host) or "nothing"))
    rows.append(("images/s at most", problem or _roofline_text(report, chip, costs)))
    width = max(len(label) for label, _ in rows)
    title = f"{TITLES[name]} (compiled in {costs.seconds:.0f} s)"
    return "\n".join([title, *(f"  {label:{width}}  {value}" for label, value in rows)])


def _flops_text(costs: Costs) -> str:
    asked = f"{costs.asked_flops:.4g} of convolutions and matrix products"
    if costs.flops is None:
        return f"{asked}, counted in the program; the compiler gives none"
    return f"{costs.flops:.4g}, {costs.flops / costs.asked_flops:.3f} times the {asked}"


def _collectives_text(collectives: Sequence[Collective]) -> str:
    if not collectives:
        return "none"
    lines = []
    for c in sorted(collectives, key=lambda c: -c.size):
        largest = max(c.arrays, key=array_bytes)
        more = f" and {len(c.arrays) - 1} more" if len(c.arrays) > 1 else ""
        lines.append(f"{c.kind} of {_size(c.size)}: {largest}{more}")
    return ("\n" + " " * 20).join(lines)


def _size(size: float) -> str:
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}"
    return f"{size:.0f} bytes"


def _roofline_text(report: Report, chip: Chip, costs: Costs) -> str:
    limit = roofline(costs, chip, report.dtype)
    compute = f"FLOPs take {limit.compute * 1e3:.1f} ms"
    traffic = (
        "what memory traffic takes is not known"
        if limit.traffic is None
        else f"bytes take {limit.traffic * 1e3:.1f} ms"
    )
    rate = report.images_per_device / limit.seconds
    in_all = f", {rate * report.devices:.0f} on all {report.devices}" if report.devices > 1 else ""
    return f"{rate:.0f}{in_all}: {compute}, {traffic}"


HEAD = (
    "network", "images a device", "devices", "program", "FLOPs", "bytes accessed", "memory", "exchanged",
    "images/s a device at most",
)  # fmt: skip


def table(reports: Sequence[Report]) -> str:
    """Markdown, a row for each program, of one device."""
    rows = [HEAD, ("---",) * len(HEAD)]
    for report in reports:
        rows += [_row(report, name) for name in report.programs]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _row(report: Report, name: Program) -> tuple[str, ...]:
    costs, chip = report.programs[name], parse_target(report.target).chip
    limit = roofline(costs, chip, report.dtype)
    problem, memory = memory_problem(costs, chip), costs.memory
    flops = f"{costs.asked_flops:.3g} (asked)" if costs.flops is None else f"{costs.flops:.3g}"
    return (
        f"SSD{report.image_size}, {report.num_classes} classes, {report.dtype}",
        str(report.images_per_device),
        f"{report.devices} x {chip.title}",
        TITLES[name],
        flops,
        "not told" if costs.bytes_accessed is None else f"{costs.bytes_accessed / 1e9:.1f} GB",
        problem or ("" if memory is None else f"{memory.peak / GIB:.1f} GiB"),
        "" if memory is None else _size(sum(c.size for c in costs.collectives)),
        "" if problem else f"{report.images_per_device / limit.seconds:.0f}",
    )
