"""What fine-tuning gains: mAP after each epoch, from a trained detector and from scratch, at the same budget.

    python -m benchmarks.fine_tune BCCD --out runs/fine_tune

1. Copies one part of the images, with the objects of some classes only.
2. Trains a detector of those classes on the copy: the base (or takes a run: --base RUN).
3. Trains detectors of all classes on a few other images, which the base has not seen: for each seed one from scratch,
   and one from the base, whose predictors are carried over by class name. They differ in nothing else.
4. Writes the table to the screen and to table.md, the numbers to results.json and the curves to curves.png.

The same command goes on where it was stopped. The defaults are those of docs/fine_tuning.md.
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
from ssd_jax.commands.evaluate import evaluate
from ssd_jax.commands.main import warnings_on_screen
from ssd_jax.commands.options import load_config
from ssd_jax.config import Config
from ssd_jax.data.check.clean_copy import write_clean_copy
from ssd_jax.data.formats.open import open_source
from ssd_jax.data.run_splits import with_data_root
from ssd_jax.data.source import FolderSource, Source
from ssd_jax.errors import UserError
from ssd_jax.runs import run_folder
from ssd_jax.runs.log import read_results
from ssd_jax.training import run as training_run

STARTS = ("from scratch", "fine-tuned")
COLOURS = {"from scratch": "C1", "fine-tuned": "C0"}
MEASURES = {"voc_map_11point": "11-point", "voc_map_area": "area"}


@dataclass(frozen=True)
class Options:
    data: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """A data set with all its classes, in any layout that train.py reads."""
    out: Path
    """Folder for the runs and what comes of them."""
    config: Path = Path("configs/own_data.py")
    """Of the base and, but for its steps, warm-up and seed, of all runs."""
    base: Path | None = None
    """A run to start from. Else one is trained, on the images of base_split with the objects of base_classes."""
    base_classes: tuple[str, ...] = ("RBC", "WBC")
    base_split: str = "trainval[:148]"
    base_steps: int = 800
    train_split: str = "trainval[148:188]"
    """Trained on from scratch and from the base. Of 40 images an epoch is exactly 5 steps of 8."""
    test_split: str = "test"
    """Measured after every epoch; nothing is chosen on it."""
    epochs: int = 5
    seeds: tuple[int, ...] = (0, 1, 2)
    learning_rate: float = 1e-2
    """The highest of the schedule, whose rest is the config's and ends with the last epoch."""
    warmup_steps: int = 5


class Run(NamedTuple):
    """One curve."""

    start: str
    """One of STARTS."""
    seed: int
    epochs: list[dict[str, float]]
    """Of each epoch what was measured after it, by the keys of MEASURES."""
    per_class: dict[str, float]
    """Average precision (11-point) of each class after the last."""


# ---- the base: a data set with some of the classes, and a detector of these ----


def only_classes(source: Source, class_names: Sequence[str]) -> FolderSource:
    """All images of a split of files, with the objects of these classes only; labels are places in the new list.

    Raises UserError for a class that the split doesn't have.
    """
    for name in class_names:
        if name not in source.class_names:
            raise UserError(f"'{name}' is no class of the data, which has {', '.join(source.class_names)}")
    label = {source.class_names.index(name) + 1: k for k, name in enumerate(class_names, start=1)}
    annotations = []
    for whole in source.annotations():
        kept = [j for j, old in enumerate(whole.labels.tolist()) if old in label]
        labels = whole.labels[kept]
        labels[:] = [label[old] for old in labels.tolist()]
        per_object = {name: getattr(whole, name)[kept] for name in ("boxes_px", "difficult", "crowd", "area_px")}
        annotations.append(whole._replace(labels=labels, **per_object))
    return FolderSource(annotations, class_names)


def write_copy(folder: Path, source: Source) -> None:
    """The images of a split and their objects as the split `train` of a new data set, in COCO's layout."""
    if (folder / "annotations" / "instances_train.json").exists():  # which is written last
        return
    shutil.rmtree(folder, ignore_errors=True)
    files = [annotation.file for annotation in source.annotations()]
    # Every image is wanted, so each has a digest of its own.
    write_clean_copy(folder, {"train": source}, {file: file.encode() for file in files}, lambda images: None)


def train_base(config: Config, options: Options) -> Path:
    """The run of the base, trained to its end."""
    folder = options.out / "base_data"
    whole = open_source(config.data, options.base_split)
    write_copy(folder, only_classes(whole, options.base_classes))
    train = dataclasses.replace(config.train, steps=options.base_steps, eval_every=0)
    data = dataclasses.replace(config.data, train_split="train")
    run = options.out / "base"
    training_run.train(with_data_root(dataclasses.replace(config, data=data, train=train), str(folder)), run)
    return run


# ---- the six runs ----


def steps_per_epoch(images: int, batch_size: int) -> int:
    """The fewest steps in which every image was shown."""
    return math.ceil(images / batch_size)


def run_config(config: Config, options: Options, start: str, base: Path, seed: int, epoch: int) -> Config:
    """Of one run. epoch: its steps. Only where it starts, and the seed, tell one run from another."""
    train = dataclasses.replace(
        config.train, seed=seed, steps=options.epochs * epoch, eval_every=epoch, checkpoint_every=epoch, log_every=epoch
    )
    if start == "fine-tuned":
        train = dataclasses.replace(train, pretrained=str(base), transfer=True)
    return dataclasses.replace(
        config,
        train=train,
        # The val split of a run is the one that is measured on the way. That the program also keeps the best
        # checkpoint by it plays no part here: what counts is the last epoch, whatever it gives.
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


def train_and_measure(config: Config, folder: Path, start: str) -> Run:
    """One run to its end, or on to its end, and what was measured of it."""
    training_run.train(config, folder)
    if not (folder / "metrics.json").exists():
        evaluate([str(folder), "--checkpoint", "last"])
    epochs = [{key: row[key] or 0.0 for key in MEASURES} for row in read_results(folder)]
    per_class = json.loads((folder / "metrics.json").read_text())["voc_classes"]
    return Run(start, config.train.seed, epochs, {name: c["ap_11point"] or 0.0 for name, c in per_class.items()})


# ---- what comes of them ----


def leads(runs: Sequence[Run], measure: str) -> list[float]:
    """Of each seed, by how much the fine-tuned run is ahead of that from scratch after the last epoch."""
    last = {(run.start, run.seed): run.epochs[-1][measure] for run in runs}
    return [last["fine-tuned", seed] - last["from scratch", seed] for seed in dict.fromkeys(run.seed for run in runs)]


def results(runs: Sequence[Run]) -> dict[str, Any]:
    """What results.json holds: all that was measured, and the leads."""
    ahead = {measure: leads(runs, measure) for measure in MEASURES}
    summary = {key: {"of_each_seed": values, "median": median(values)} for key, values in ahead.items()}
    return {"fine_tuned_ahead_after_the_last_epoch": summary, "runs": [run._asdict() for run in runs]}


def tables(runs: Sequence[Run]) -> str:
    """In Markdown: mAP of each run after each epoch, AP of each class after the last, and the leads."""
    epochs = len(runs[0].epochs)
    measured, classes = [], []
    for run in sorted(runs, key=lambda run: STARTS.index(run.start)):
        name = [run.start, str(run.seed)]
        measured.append(name + [f"{e['voc_map_11point']:.3f} ({e['voc_map_area']:.3f})" for e in run.epochs])
        classes.append(name + [f"{ap:.3f}" for ap in run.per_class.values()])
    ahead = []
    for key, label in MEASURES.items():
        values = leads(runs, key)
        ahead.append([label] + [f"{value:+.3f}" for value in (*values, median(values))])
    seeds = [f"seed {seed}" for seed in dict.fromkeys(run.seed for run in runs)]
    parts = (
        ("mAP after each epoch, 11-point (area):", ["", "seed", *map(str, range(1, epochs + 1))], measured),
        (f"AP of each class after epoch {epochs}, 11-point:", ["", "seed", *runs[0].per_class], classes),
        (f"mAP after epoch {epochs}, fine-tuned less from scratch:", ["", *seeds, "median"], ahead),
    )
    return "\n\n".join(f"{title}\n\n{_markdown(header, rows)}" for title, header, rows in parts) + "\n"


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows))


def draw_curves(runs: Sequence[Run], new_classes: Sequence[str], file: Path) -> None:
    """Two panels: mAP (11-point) over the epochs, a line for each run, and AP of each class after the last.

    new_classes: those that the base did not know; marked as such.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # as in ssd_jax.report.draw: late, and without pyplot
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
    with files.user_errors_on_write(file):
        figure.savefig(file)


# ---- all of it ----


def main(argv: Sequence[str]) -> int:
    options = tyro.cli(Options, args=list(argv), prog="fine_tune", description=__doc__)
    try:
        with warnings_on_screen():
            compare(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def compare(options: Options) -> None:
    """The whole experiment, or what is left of it to do."""
    config = with_data_root(load_config(options.config), str(options.data))
    source = open_source(config.data, options.train_split)
    epoch = steps_per_epoch(len(source), config.train.batch_size)
    base = options.base or train_base(config, options)
    base_classes = run_folder.read_config(base).model.class_names
    runs = []
    for seed in options.seeds:
        for start in STARTS:
            folder = options.out / f"{start.replace(' ', '_').replace('-', '_')}_{seed}"
            runs.append(train_and_measure(run_config(config, options, start, base, seed, epoch), folder, start))
    text = tables(runs)
    files.write_text(options.out / "results.json", json.dumps(results(runs), indent=2) + "\n")
    files.write_text(options.out / "table.md", text)
    draw_curves(runs, [name for name in source.class_names if name not in base_classes], options.out / "curves.png")
    print(f"\nAn epoch is {epoch} steps of {config.train.batch_size} images; {len(source)} images.\n\n{text}")
    print(f"Written: {options.out}/results.json, table.md and curves.png")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
