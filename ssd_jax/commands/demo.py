"""``ssd-jax demo``: show what the program does, without any files of the user."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ssd_jax.commands.options import initialize_jax, parse_options
from ssd_jax.commands.predict import PredictOptions, predict
from ssd_jax.model_zoo.catalog import BUNDLED_FOLDER

DETECTOR = "blood-cells"
"""Bundled detector that is applied to `PHOTOGRAPHS`."""
PHOTOGRAPHS = BUNDLED_FOLDER.parent / "photographs"
"""Folder of photographs that come with the package. They are from the test split of the detector's data set."""


@dataclass(frozen=True)
class DemoOptions:
    """Detect blood cells in photographs with a bundled detector, then train another detector on generated images."""

    out: Path = Path("runs/demo")
    """Folder for the results. The same command again resumes a training that was stopped."""
    train: bool = True
    """Also train on generated images, which takes some minutes, and evaluate the result."""


def run(argv: Sequence[str]) -> None:
    """Run ``ssd-jax demo`` with the arguments ``argv``."""
    options = parse_options(DemoOptions, "demo", argv)
    initialize_jax()
    demo(options)


def demo(options: DemoOptions) -> None:
    """Detect objects in `PHOTOGRAPHS`, train on generated images and evaluate, and name the next steps.

    Raises:
        UserError: If the results cannot be written.
    """
    print(f"1. The bundled detector {DETECTOR} finds cells in photographs that it was not trained on.")
    predict(PredictOptions(DETECTOR, (PHOTOGRAPHS,), out=options.out / "photographs"))
    if options.train:
        train_and_evaluate(options.out / "shapes")
    print(f"\n{format_next_steps(options.out)}")


def train_and_evaluate(run: Path) -> None:
    """Train the config ``shapes`` from random weights, and write its metrics, pictures and report."""
    from ssd_jax.evaluation.run import evaluate
    from ssd_jax.runs.config_file import load_config
    from ssd_jax.training.run import train

    print("\n2. A detector is trained from random weights on generated images of shapes.")
    train(load_config("shapes"), run)
    print("\n3. The detector is evaluated on images that it was not trained on.")
    evaluate(run, report=True)
    print(f"Compare {run / 'test_truth.jpg'} (annotations) with {run / 'test_pred.jpg'} (detections).")


def format_next_steps(out: Path) -> str:
    """Return the text about what to do after the demo."""
    return "\n".join([
        f"Look at the images in {out / 'photographs'}. Then:",
        "  ssd-jax models                                   lists the detectors that you can use by name",
        "  ssd-jax check-data own_data --data.root FOLDER   finds mistakes in your images and boxes",
        "  ssd-jax train own_data --data.root FOLDER        trains a detector on them",
    ])  # fmt: skip
