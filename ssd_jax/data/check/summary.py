"""Format the result of a data set check as text, and write it to files."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import tabulate

from ssd_jax.config import Config
from ssd_jax.data.check.box_coverage import BoxCoverage, Coverage
from ssd_jax.data.check.checks import DataSetCheck
from ssd_jax.data.check.clean_copy import CopyCount
from ssd_jax.data.check.recommendation import Recommendation
from ssd_jax.data.problems import Kind, Problem, Severity, group_problems, summarise_group
from ssd_jax.errors import escape_text
from ssd_jax.files import write_csv, write_text
from ssd_jax.plurals import format_count

_SEVERITIES = list(Severity)  # in decreasing order
_MAX_GROUPS = 5  # lines for problems of one kind
_MAX_CLASSES = 24  # classes in the table


def format_problems(problems: Iterable[Problem], root: str = "") -> str:
    """Return a text with a line for all problems that are alike, the most severe ones first.

    Args:
        problems: The problems.
        root: Folder of the data set. Paths inside it are relative to it.
    """
    lines: list[str] = []
    order = {kind: index for index, kind in enumerate(Kind)}
    by_kind: dict[Kind, list[list[Problem]]] = {}
    for group in group_problems(problems):
        by_kind.setdefault(group[0].kind, []).append(group)
    for kind in sorted(by_kind, key=lambda kind: (_SEVERITIES.index(kind.severity), order[kind])):
        groups = sorted(by_kind[kind], key=len, reverse=True)
        for group in groups[:_MAX_GROUPS]:
            line = _shorten_paths(summarise_group(group).removeprefix(f"{root}: "), root)
            lines.append(f"{kind.severity.value}: {line}")
        hidden = sum(map(len, groups[_MAX_GROUPS:]))
        if hidden:
            lines.append(f"{kind.severity.value}: {hidden} more of the kind '{kind.title}', see problems.csv")
    return "\n".join(map(escape_text, lines)) or "no problems"


def _shorten_paths(line: str, root: str) -> str:
    """Return a line with paths relative to a folder, except for the path of the folder itself."""
    if not root:
        return line
    return re.sub(re.escape(root.rstrip("/\\")) + r"[/\\]", "", line).replace(f": {root} ", ": ")


def format_counts(check: DataSetCheck) -> str:
    """Return a table of the numbers of objects by class and split, as text.

    The last column contains the percentage of the objects in the train split that are unmatched (see `box_coverage`),
    and the last rows contain totals. Of many classes, the most frequent
    ones have a row each.
    """
    counts, coverage = check.counts.values(), check.coverage
    names = sorted(coverage.by_class, key=lambda name: -sum(count.objects[name] for count in counts))
    shown = set(names if len(names) <= _MAX_CLASSES else names[: _MAX_CLASSES - 1])
    rows: list[Any] = [
        [escape_text(name), *(count.objects[name] for count in counts), share]
        for name, share in coverage.by_class.items()
        if name in shown
    ]
    others = [name for name in names if name not in shown]
    if others:
        totals = [sum(count.objects[name] for name in others) for count in counts]
        rows.append([f"{len(others)} rarer classes", *totals, ""])
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


def format_headline(problems: Iterable[Problem], root: str) -> str:
    """Return a line with the folder of the data set and the number of its problems by severity."""
    counts = Counter(problem.kind.severity for problem in problems)
    texts = [f"{counts[severity]} {severity.value}{'s' * (counts[severity] != 1)}" for severity in Severity]
    return f"{root}: {', '.join(texts)}"


def format_recommendation(recommendation: Recommendation, config: Config) -> str:
    """Return a text that recommends a config, with the reason and the command."""
    other = "" if recommendation.name == config.name else f" instead of {config.name}"
    title = f"Recommended: the config {recommendation.name}{other}, because {recommendation.reason}"
    return f"{title}\n  {recommendation.command}"


def format_copy_counts(counts: Mapping[str, CopyCount]) -> str:
    """Return a text with the numbers of images and objects of a corrected copy, for each split."""
    return ", ".join(f"{split} {_format_copy_count(count)}" for split, count in counts.items())


def _format_copy_count(count: CopyCount) -> str:
    total = count.images + count.merged + count.dropped
    details = []
    if count.merged:
        details.append(f"{count.merged} with the pixels of another image, which has their objects now")
    if count.dropped:
        details.append(f"{count.dropped} unusable with {format_count(count.dropped_objects, 'objects')}")
    left_out = f" (left out: {'; '.join(details)})" if details else ""
    return f"{count.images} of {format_count(total, 'images')} with {format_count(count.objects, 'objects')}{left_out}"


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
        "recommended": check.recommendation and check.recommendation._asdict(),
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
