"""``ssd-jax check-data``: find mistakes in a data set."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ssd_jax.commands.config_options import HELP, parse_config_options
from ssd_jax.commands.options import check_out_folder, make_out_folder
from ssd_jax.config import Config
from ssd_jax.errors import UserError
from ssd_jax.runtime.progress import hide_progress, show_progress

CHECK_DATA_HELP = """usage: ssd-jax check-data CONFIG [--data.root FOLDER] [--out FOLDER] ...

Reads the data set of CONFIG and lists its problems by file and box, its contents,
and the objects that no default box of the config matches. The exit code is 0 if
there is nothing to correct, 1 if there is, and 2 if the data cannot be read.

  --no-images                  check annotations only: seconds for 10,000 files
  --fix FOLDER                 write a corrected copy to FOLDER
  check-data CONFIG --help     lists the most used options, with their values
  check-data CONFIG --help-all lists all options"""

COMMON_OPTIONS = (
    "data.root", "data.format", "data.train_split", "data.val_split", "data.test_split", "data.max_objects",
)  # fmt: skip


@dataclass(frozen=True)
class CheckDataOptions:
    config: Annotated[Config, tyro.conf.arg(name="")]
    out: Path = Path("data_check")
    """Folder for problems.csv, check.json, data.png (classes and sizes) and <split>_samples.jpg."""
    images: bool = True
    """Also decode every image, and find repeated images."""
    fix: Path | None = None
    """New folder for a corrected copy in COCO's format. In the copy, boxes are clipped to their image; empty and
    repeated boxes and unusable images are left out; images with equal pixels become one image with the objects of all
    of them; all images are upright and RGB. The original data is not changed."""
    quiet: bool = False
    """Show no progress: print only results, warnings and errors."""


def run(argv: Sequence[str]) -> int:
    """Run ``ssd-jax check-data`` with the arguments ``argv``, and return the exit code."""
    if argv and argv[0] in HELP:
        print(CHECK_DATA_HELP)
        return 0
    options = parse_config_options(CheckDataOptions, "check-data", argv, COMMON_OPTIONS)
    with hide_progress(options.quiet):
        return check_data(options)


def check_data(options: CheckDataOptions) -> int:
    """Check a data set, print and write its problems, and return the exit code: 1 if there is something to correct."""
    from ssd_jax.data.check import summary
    from ssd_jax.data.check.checks import check_data_set
    from ssd_jax.data.check.clean_copy import (
        check_annotations_readable,
        check_copy_folder,
        describe_copy,
        write_clean_copy,
    )
    from ssd_jax.data.check.recommendation import find_accelerator, recommend_config
    from ssd_jax.data.problems import Problems, Severity
    from ssd_jax.data.run_splits import with_data_root
    from ssd_jax.report.data_set import write_data_set_figures

    config = with_data_root(options.config, options.config.data.root)
    check_out_folder(options.out, "check.json")
    if options.fix is not None:
        check_copy_folder(options.fix, Path(config.data.root))
        if not options.images:
            raise UserError("--fix needs the images: remove --no-images")
    make_out_folder(options.out)
    problems = Problems(raise_errors=False)
    try:
        check = check_data_set(config, read_images=options.images, show_progress=True, problems=problems)
    except UserError:
        if problems.collected:
            print(summary.format_headline(problems.collected, config.data.root))
            print(summary.format_problems(problems.collected, config.data.root))
        raise
    print(summary.format_headline(check.problems, config.data.root))
    print(summary.format_problems(check.problems, config.data.root), end="\n\n")
    print(summary.format_counts(check), end="\n\n")
    print(summary.format_box_coverage(check.coverage, config), end="\n\n")
    if check.recommendation is not None and options.fix is None:
        print(summary.format_recommendation(check.recommendation, config), end="\n\n")
    with show_progress("drawing figures"):
        summary.write_check_files(options.out, check)
        write_data_set_figures(options.out, check, config.model.default_boxes)
    print(
        f"Written to {options.out}: problems.csv (all problems), check.json, data.png, sample images with their boxes"
    )
    if options.fix is not None:
        check_annotations_readable(check.problems)
        with show_progress("copying images", sum(map(len, check.splits.values()))) as task:
            counts = write_clean_copy(options.fix, check.splits, check.digests, task.update)
        text = summary.format_copy_counts(counts)
        print(f"Corrected copy in {options.fix}: {text}. It does not keep VOC's difficult flag")
        copied = dataclasses.replace(config, data=describe_copy(config.data, options.fix))
        recommendation = recommend_config(
            check.splits[config.data.train_split], copied, has_accelerator=find_accelerator()
        )
        if recommendation is not None:
            print(summary.format_recommendation(recommendation, config))
    return int(any(problem.kind.severity is not Severity.NOTE for problem in check.problems))
