"""Compare fine-tuning with training from scratch by the mAP after each epoch, with the same number of steps.

    python -m benchmarks.fine_tune BCCD --out runs/fine_tune

1. Copy a part of the images, with the objects of some classes only.
2. Train the base, a detector of these classes, on the copy. With `--base RUN`, an existing run is the base.
3. Train detectors of all classes on a few images that the base was not trained on. For each seed, one detector starts
   from scratch and one from the base, whose class predictors are copied by class name. All other settings are the same.
4. Print tables and write them to table.md. Write the numbers to results.json and the curves to curves.png.

If the comparison is interrupted, the same command continues it. The default options give the comparison in
docs/fine_tuning.md.
"""

import dataclasses
import itertools
import json
import math
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any, NamedTuple

import tyro

from ssd_jax import files
from ssd_jax.commands import evaluate
from ssd_jax.commands.main import print_warnings_to_stderr
from ssd_jax.config import Config
from ssd_jax.data.check.clean_copy import write_clean_copy
from ssd_jax.data.formats.open import open_source
from ssd_jax.data.run_splits import with_data_root
from ssd_jax.data.source import FolderSource, Source
from ssd_jax.errors import UserError
from ssd_jax.runs import run_folder
from ssd_jax.runs.config_file import load_config
from ssd_jax.runs.log import read_results
from ssd_jax.training import run as training_run

STARTS = ("from scratch", "fine-tuned")
COLOURS = {"from scratch": "C1", "fine-tuned": "C0"}
METRICS = {"voc_map_11point": "11-point", "voc_map_area": "area"}


@dataclass(frozen=True)
class Options:
    data: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """Folder of a data set with all its classes, in any format that train.py reads."""
    out: Path
    """Folder for the runs and the results."""
    config: Path = Path("configs/own_data.py")
    """Config of the base. The other runs use it with other splits, steps, warm-up, learning rate and seed."""
    base: Path | None = None
    """Run to use as the base. Default: train one on the images of base_split, with the objects of base_classes."""
    base_classes: tuple[str, ...] = ("RBC", "WBC")
    """Classes that the base is trained on."""
    base_split: str = "trainval[:148]"
    """Images that the base is trained on."""
    base_steps: int = 800
    """Number of training steps of the base."""
    train_split: str = "trainval[148:188]"
    """Images that the compared runs are trained on. An epoch of 40 images is exactly 5 steps of 8 images."""
    test_split: str = "test"
    """Split that is evaluated after every epoch. No choice depends on the metrics of this split."""
    epochs: int = 5
    """Number of epochs of each compared run."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds. For each seed, one run starts from scratch and one from the base."""
    learning_rate: float = 1e-2
    """Peak learning rate of the compared runs. The schedule of the config is used; it ends with the last epoch."""
    warmup_steps: int = 5
    """Number of warm-up steps of the compared runs."""


class Run(NamedTuple):
    """Metrics of one run of the comparison."""

    start: str
    """Kind of run: "from scratch" (random initial parameters) or "fine-tuned" (those of the base)."""
    seed: int
    epochs: list[dict[str, float]]
    """Metrics after each epoch, with the keys of METRICS."""
    per_class: dict[str, float]
    """Average precision (11-point) of each class after the last epoch."""


# ---- training of the base on some of the classes ----


def select_classes(source: Source, class_names: Sequence[str]) -> FolderSource:
    """Return all images of a split, with only the objects of ``class_names``. Labels follow the order of this list.

    Raises:
        UserError: If the split does not have one of the classes.
    """
    for name in class_names:
        if name not in source.class_names:
            raise UserError(f"the data set has no class '{name}'; its classes are {', '.join(source.class_names)}")
    label = {source.class_names.index(name) + 1: k for k, name in enumerate(class_names, start=1)}
    annotations = []
    for annotation in source.annotations():
        kept = [j for j, old in enumerate(annotation.labels.tolist()) if old in label]
        labels = annotation.labels[kept]
        labels[:] = [label[old] for old in labels.tolist()]
        per_object = {name: getattr(annotation, name)[kept] for name in ("boxes_px", "difficult", "crowd", "area_px")}
        annotations.append(annotation._replace(labels=labels, **per_object))
    return FolderSource(annotations, class_names)


def write_copy(folder: Path, source: Source) -> None:
    """Write the images and objects of a split as the split `train` of a new data set in COCO's format.

    If the folder already has a complete copy, it is kept.
    """
    if (folder / "annotations" / "instances_train.json").exists():  # this file is written last
        return
    shutil.rmtree(folder, ignore_errors=True)
    files = [annotation.file for annotation in source.annotations()]
    # Only one of several images with the same digest is written, so each image gets its own digest.
    write_clean_copy(folder, {"train": source}, {file: file.encode() for file in files}, lambda images: None)


def train_base(config: Config, options: Options) -> Path:
    """Train the base detector on the selected classes and return the run folder."""
    folder = options.out / "base_data"
    source = open_source(config.data, options.base_split)
    write_copy(folder, select_classes(source, options.base_classes))
    train = dataclasses.replace(config.train, steps=options.base_steps, eval_every=0)
    data = dataclasses.replace(config.data, train_split="train")
    run = options.out / "base"
    training_run.train(with_data_root(dataclasses.replace(config, data=data, train=train), str(folder)), run)
    return run


# ---- the runs that are compared ----


def count_steps_per_epoch(images: int, batch_size: int) -> int:
    """Return the number of steps in an epoch: the smallest number that uses every image."""
    return math.ceil(images / batch_size)


def make_run_config(config: Config, options: Options, start: str, base: Path, seed: int, epoch_steps: int) -> Config:
    """Return the config of one run of the comparison. The configs differ only in the initial parameters and the seed.

    Args:
        config: Config of the base.
        options: Options of the comparison.
        start: Kind of run: "from scratch" (random initial parameters) or "fine-tuned" (those of the base).
        base: Run folder of the base.
        seed: Seed of the run.
        epoch_steps: Number of steps in an epoch.
    """
    train = dataclasses.replace(
        config.train,
        seed=seed,
        steps=options.epochs * epoch_steps,
        eval_every=epoch_steps,
        checkpoint_every=epoch_steps,
        log_every=epoch_steps,
    )
    if start == "fine-tuned":
        train = dataclasses.replace(train, pretrained=str(base), transfer=True)
    return dataclasses.replace(
        config,
        train=train,
        # Training evaluates the val split after each epoch, so the val split is set to the test split here. Training
        # also keeps the checkpoint with the best metric on it, but only the last checkpoint is used.
        data=dataclasses.replace(
            config.data,
            train_split=options.train_split,
            val_split=options.test_split,
            test_split=options.test_split,
        ),
        optimizer=dataclasses.replace(
            config.optimizer, learning_rate=options.learning_rate, warmup_steps=options.warmup_steps
        ),
    )


def train_and_evaluate(config: Config, folder: Path, start: str) -> Run:
    """Train a run to its last step and return its metrics. An interrupted run is resumed."""
    training_run.train(config, folder)
    if not (folder / "metrics.json").exists():
        evaluate.run([str(folder), "--checkpoint", "last"])
    epochs = [{key: row[key] or 0.0 for key in METRICS} for row in read_results(folder)]
    per_class = json.loads((folder / "metrics.json").read_bytes())["voc_classes"]
    return Run(start, config.train.seed, epochs, {name: c["ap_11point"] or 0.0 for name, c in per_class.items()})


# ---- results ----


def compute_gains(runs: Sequence[Run], metric: str) -> list[float]:
    """Return, for each seed, the final metric of the fine-tuned run minus that of the run from scratch."""
    last = {(run.start, run.seed): run.epochs[-1][metric] for run in runs}
    return [last["fine-tuned", seed] - last["from scratch", seed] for seed in dict.fromkeys(run.seed for run in runs)]


def make_results(runs: Sequence[Run]) -> dict[str, Any]:
    """Return the content of results.json: the metrics of all runs and the gains from fine-tuning."""
    differences = {metric: compute_gains(runs, metric) for metric in METRICS}
    summary = {key: {"per_seed": values, "median": median(values)} for key, values in differences.items()}
    return {"fine_tuned_minus_from_scratch_after_the_last_epoch": summary, "runs": [run._asdict() for run in runs]}


def make_tables(runs: Sequence[Run]) -> str:
    """Return Markdown tables of the mAP after each epoch, the AP of each class after the last epoch, and the gains."""
    epochs = len(runs[0].epochs)
    map_rows, class_rows = [], []
    for run in sorted(runs, key=lambda run: STARTS.index(run.start)):
        name = [run.start, str(run.seed)]
        map_rows.append(name + [f"{e['voc_map_11point']:.3f} ({e['voc_map_area']:.3f})" for e in run.epochs])
        class_rows.append(name + [f"{ap:.3f}" for ap in run.per_class.values()])
    gain_rows = []
    for key, label in METRICS.items():
        values = compute_gains(runs, key)
        gain_rows.append([label] + [f"{value:+.3f}" for value in (*values, median(values))])
    seeds = [f"seed {seed}" for seed in dict.fromkeys(run.seed for run in runs)]
    parts = (
        ("mAP after each epoch, 11-point (area):", ["", "seed", *map(str, range(1, epochs + 1))], map_rows),
        (f"AP of each class after epoch {epochs}, 11-point:", ["", "seed", *runs[0].per_class], class_rows),
        (f"mAP after epoch {epochs}, fine-tuned minus from scratch:", ["", *seeds, "median"], gain_rows),
    )
    return "\n\n".join(f"{title}\n\n{_format_markdown_table(header, rows)}" for title, header, rows in parts) + "\n"


def _format_markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows))


def draw_curves(runs: Sequence[Run], new_classes: Sequence[str], file: Path) -> None:
    """Plot the mAP (11-point) of each run over the epochs, and the AP of each class after the last epoch.

    Args:
        runs: Metrics of all runs.
        new_classes: Classes that the base was not trained on. They are marked as new.
        file: Image file to write.
    """
    # Imported only here and without pyplot, as in ssd_jax.report.draw, because the import is slow.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    curves, classes = figure.subplots(1, 2, width_ratios=(3, 2))
    names, epochs = list(runs[0].per_class), range(1, len(runs[0].epochs) + 1)
    marker = dict(zip(dict.fromkeys(run.seed for run in runs), itertools.cycle("os^Dv*"), strict=False))
    for run in sorted(runs, key=lambda run: STARTS.index(run.start)):
        style: Any = {"color": COLOURS[run.start], "marker": marker[run.seed], "markersize": 6}
        values = [epoch["voc_map_11point"] for epoch in run.epochs]
        curves.plot(epochs, values, label=f"{run.start}, seed {run.seed}", linewidth=1.6, **style)
        places = [k + (-0.15, 0.15)[STARTS.index(run.start)] for k in range(len(names))]
        classes.plot(places, list(run.per_class.values()), linestyle="", alpha=0.8, **style)
    figure.legend(loc="outside lower center", ncols=len(STARTS))
    curves.set_title("mAP on the test images, 11-point")
    curves.set_xlabel("epoch")
    curves.set_xticks(epochs)
    classes.set_title(f"AP of each class after epoch {len(epochs)}")
    classes.set_xticks(range(len(names)), [f"{name}\n(new)" if name in new_classes else name for name in names])
    classes.set_xlim(-0.6, len(names) - 0.4)
    for axes in (curves, classes):
        axes.set_ylim(0, 1)
        axes.grid(alpha=0.3)
    with files.convert_write_errors(file):
        figure.savefig(file)


# ---- the command ----


def main(argv: Sequence[str]) -> int:
    options = tyro.cli(Options, args=list(argv), prog="fine_tune", description=__doc__)
    try:
        with print_warnings_to_stderr():
            compare(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def compare(options: Options) -> None:
    """Run the comparison, or continue an interrupted one, and write the results."""
    config = with_data_root(load_config(options.config), str(options.data))
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, val_split=options.test_split))
    source = open_source(config.data, options.train_split)
    epoch_steps = count_steps_per_epoch(len(source), config.train.batch_size)
    base = options.base or train_base(config, options)
    base_classes = run_folder.read_config(base).model.class_names
    runs = []
    for seed in options.seeds:
        for start in STARTS:
            folder = options.out / f"{start.replace(' ', '_').replace('-', '_')}_{seed}"
            runs.append(
                train_and_evaluate(make_run_config(config, options, start, base, seed, epoch_steps), folder, start)
            )
    text = make_tables(runs)
    files.write_text(options.out / "results.json", json.dumps(make_results(runs), indent=2) + "\n")
    files.write_text(options.out / "table.md", text)
    draw_curves(runs, [name for name in source.class_names if name not in base_classes], options.out / "curves.png")
    print(f"\nAn epoch of {len(source)} images is {epoch_steps} steps of {config.train.batch_size} images.\n\n{text}")
    print(f"Written: {options.out}/results.json, table.md and curves.png")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
