"""Format the result of a data set check as text, and write it to files."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import tabulate

from ssd_jax.config import Config
from ssd_jax.data.check.box_coverage import BoxCoverage, Coverage
from ssd_jax.data.check.checks import DataSetCheck
from ssd_jax.data.check.clean_copy import CopyCount
from ssd_jax.data.problems import Kind, Problem
from ssd_jax.files import write_csv, write_text
from ssd_jax.text import escape_text


def format_problems(problems: Iterable[Problem], max_shown: int = 10) -> str:
    """Return a text that lists problems by kind, the most severe kind first, with one problem per line.

    Args:
        problems: The problems.
        max_shown: Maximum number of problems of one kind that are listed; the other problems are only counted.
    """
    lines: list[str] = []
    by_kind: dict[Kind, list[Problem]] = {}
    for problem in problems:
        by_kind.setdefault(problem.kind, []).append(problem)
    for kind in Kind:  # in order of severity
        same_kind = by_kind.get(kind, [])
        if not same_kind:
            continue
        lines.append(f"{kind.severity.value}: {kind.title}: {len(same_kind)}")
        lines += [escape_text(f"    {p.file}: {p.text}".rstrip(": ")) for p in same_kind[:max_shown]]
        if len(same_kind) > max_shown:
            lines.append(f"    and {len(same_kind) - max_shown} more")
    return "\n".join(lines) or "no problems"


def format_counts(check: DataSetCheck) -> str:
    """Return a table of the numbers of objects by class and split, as text.

    The last column contains the percentage of the objects in the train split that are unmatched (see `box_coverage`),
    and the last rows contain totals.
    """
    counts, coverage = check.counts.values(), check.coverage
    rows: list[Any] = [
        [escape_text(name), *(count.objects[name] for count in counts), share]
        for name, share in coverage.by_class.items()
    ]
    rows.append(tabulate.SEPARATING_LINE)
    rows.append(["all objects", *(sum(count.objects.values()) for count in counts), coverage.all])
    rows.append(["images", *(count.images for count in counts), ""])
    rows.append(["without objects", *(count.background for count in counts), ""])
    columns = ["class", *check.counts, "unmatched"]
    align = ["left", *["right"] * (len(columns) - 1)]
    return tabulate.tabulate(rows, columns, colalign=align, disable_numparse=True)


def format_box_coverage(coverage: BoxCoverage, config: Config) -> str:
    """Return a text that says how well the config's default boxes fit the objects and, if needed, suggests a change."""
    boxes = config.model.default_boxes
    by_size = [f"{name} {share} of {share.objects}" for name, share in coverage.by_size.items() if share.objects]
    published = [f"{name} {share}" for name, share in coverage.published.items()]
    return "\n".join(
        [
            f"Unmatched: no default box of {config.name} ({boxes.count} boxes, {boxes.image_size} px) reaches IoU "
            f"{config.match.iou_threshold:g} with the object, so training matches the object to only one box.",
            f"  by size in the network's input: {', '.join(by_size)}",
            f"  with other default boxes: {', '.join(published)}",
            f"  {coverage.advice}",
        ]
    )


def format_copy(counts: Mapping[str, CopyCount]) -> str:
    """Return a text with the numbers of images and objects of a corrected copy, for each split."""
    return ", ".join(f"{split} {_format_copy_count(count)}" for split, count in counts.items())


def _format_copy_count(count: CopyCount) -> str:
    total = count.images + count.merged + count.dropped
    details = []
    if count.merged:
        details.append(f"{count.merged} with the pixels of another image, which has their objects now")
    if count.dropped:
        details.append(f"{count.dropped} unusable with {count.dropped_objects} objects")
    left_out = f" (left out: {'; '.join(details)})" if details else ""
    return f"{count.images} of {total} images with {count.objects} objects{left_out}"


def check_to_json(check: DataSetCheck) -> dict[str, Any]:
    """Return the result of a data set check as a JSON-compatible dict.

    The dict contains the number of problems of each kind, the numbers of images and objects in each split, and the
    coverage of the objects by the default boxes.
    """
    by_kind: dict[str, int] = {}
    for problem in check.problems:
        key = problem.kind.name.lower()
        by_kind[key] = by_kind.get(key, 0) + 1
    coverage = check.coverage
    groups = {"by_class": coverage.by_class, "by_size": coverage.by_size, "published": coverage.published}
    return {
        "problems": by_kind,
        "splits": {split: count._asdict() for split, count in check.counts.items()},
        "recall_ceiling": {
            "all": _coverage_to_json(coverage.all),
            **{key: {name: _coverage_to_json(c) for name, c in group.items()} for key, group in groups.items()},
            "advice": coverage.advice,
        },
    }


def _coverage_to_json(coverage: Coverage) -> dict[str, int]:
    return {"objects": coverage.objects, "below": coverage.unmatched}


def write_check_files(out: Path, check: DataSetCheck) -> None:
    """Write the result of a data set check to problems.csv and check.json in an existing folder.

    Raises:
        UserError: If a file cannot be written.
    """
    rows = [(p.kind.severity.value, p.kind.title, p.file, p.text) for p in check.problems]
    write_csv(out / "problems.csv", ("severity", "kind", "file", "problem"), rows)
    write_text(out / "check.json", json.dumps(check_to_json(check), indent=2) + "\n")
