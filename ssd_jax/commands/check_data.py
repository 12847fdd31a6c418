"""``ssd-jax check-data``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tqdm.auto import tqdm

from ssd_jax.commands.options import HELP, check_out, make_out, parse_config_options
from ssd_jax.config import Config
from ssd_jax.data.check import checks as checking
from ssd_jax.data.check.clean_copy import check_fixable, check_target, write_clean_copy
from ssd_jax.data.problems import Problems, Severity
from ssd_jax.data.run_splits import with_data_root
from ssd_jax.errors import UserError
from ssd_jax.report.data_set import write_data_set_figures

CHECK_DATA_HELP = """usage: check-data CONFIG [--data.root FOLDER] [--out FOLDER] [--no-images] ...

Reads the data set that CONFIG and its options name, with the options of train, and tells what is
wrong with it, file by file and box by box, what is in it, and how much of it the config's default
boxes can't match. Exit code: 0, nothing to mend; 1, there is; 2, it could not be read at all.

  check-data CONFIG --help     lists every option
  --no-images                  annotations alone: seconds for ten thousand files
  --fix FOLDER                 writes a cleaned copy there"""


@dataclass(frozen=True)
class CheckDataOptions:
    config: Annotated[Config, tyro.conf.arg(name="")]
    out: Path = Path("data_check")
    """Folder for problems.csv, check.json, data.png (classes, sizes) and <split>_samples.jpg."""
    images: bool = True
    """Decode every image too, and compare their pixels."""
    fix: Path | None = None
    """A new folder for a copy without what is wrong, in COCO's layout: boxes cut to their image, repeated and
    empty ones gone, unusable and repeated images left out, all upright and RGB. The data stay as they are."""


def check_data(argv: Sequence[str]) -> int:
    """check-data CONFIG [--data.root FOLDER]: what is wrong with a data set, and which boxes are out of reach."""
    if argv and argv[0] in HELP:
        print(CHECK_DATA_HELP)
        return 0
    options = parse_config_options(CheckDataOptions, "check-data", argv)
    config = with_data_root(options.config, options.config.data.root)
    check_out(options.out, "check.json")
    if options.fix is not None:
        check_target(options.fix, Path(config.data.root))
        if not options.images:
            raise UserError("--fix needs to see the images: leave out --no-images")
    make_out(options.out)
    problems = Problems(raise_errors=False)
    try:
        splits = checking.open_splits(config, problems)
    except UserError:
        if problems.collected:
            print(checking.format_problems(problems.collected))
        raise
    checking.check_annotations(splits, config.data, problems)
    total = sum(map(len, splits.values()))
    digests: dict[str, bytes] = {}
    if options.images:
        with tqdm(total=total, unit="image", dynamic_ncols=True) as bar:
            digests = checking.check_images(splits, problems, bar.update)
    counts = {split: checking.count_split(source) for split, source in splits.items()}
    coverage = checking.measure_box_coverage(splits[config.data.train_split], config)
    print(checking.format_problems(problems.collected), end="\n\n")
    print(checking.format_counts(counts, coverage), end="\n\n")
    print(checking.format_box_coverage(coverage, config), end="\n\n")
    checking.write_tables(options.out, counts, coverage, problems.collected)
    write_data_set_figures(options.out, config.model.default_boxes, splits, counts, coverage)
    print(f"Written to {options.out}: problems.csv (all of them), check.json, data.png, pictures with their boxes")
    if options.fix is not None:
        check_fixable(problems.collected)
        with tqdm(total=total, unit="image", dynamic_ncols=True) as bar:
            kept = write_clean_copy(options.fix, splits, digests, bar.update)
        told = ", ".join(f"{split} {images} of {len(splits[split])} images" for split, images in kept.items())
        print(f"Cleaned copy in {options.fix}: {told}. VOC's difficult objects are ordinary ones there")
    return int(any(p.kind.severity is not Severity.NOTE for p in problems.collected))
