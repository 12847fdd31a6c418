"""``ssd-jax demo``: show what the program does, without any files of the user."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ssd_jax import files
from ssd_jax.commands.options import OUT_ADVICE, initialize_jax, parse_options
from ssd_jax.commands.predict import PredictOptions, predict
from ssd_jax.config import Config
from ssd_jax.model_zoo.catalog import BUNDLED_FOLDER

DETECTOR = "blood-cells"
"""Bundled detector that is applied to `PHOTOGRAPHS`."""
PHOTOGRAPHS = BUNDLED_FOLDER.parent / "photographs"
"""Folder of photographs that come with the package. They are from the test split of the detector's data set."""

RUN, IMAGES = "shapes", "images"
"""Names of the run folder, and of the folder with generated images, in the folder for the results."""
IMAGE_COUNT = 3


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
    predict(PredictOptions(DETECTOR, (str(PHOTOGRAPHS),), out=options.out / "photographs"))
    if options.train:
        train_and_evaluate(options.out)
    print(f"\n{format_next_steps(options)}")


def train_and_evaluate(out: Path) -> None:
    """Train the config ``shapes`` from random weights, and write its metrics, pictures and report.

    Some of the generated test images are written, too, because `predict` needs files.

    Args:
        out: Folder for the run, ``shapes``, and the images, ``images``.
    """
    from ssd_jax.evaluation.run import evaluate
    from ssd_jax.runs.config_file import load_config
    from ssd_jax.training.run import train

    run, config = out / RUN, load_config("shapes")
    print("\n2. A detector is trained from random weights on generated images of shapes.")
    train(config, run, shows_next=False)
    print("\n3. The detector is evaluated on images that it was not trained on.")
    evaluate(run, report=True)
    print(f"Compare {run / 'test_truth.jpg'} (annotations) with {run / 'test_pred.jpg'} (detections).")
    write_images(config, out / IMAGES)


def write_images(config: Config, folder: Path) -> None:
    """Write generated images of the test split as PNG files.

    Raises:
        UserError: If they cannot be written.
    """
    from PIL import Image

    from ssd_jax.data.formats.shapes import ShapesSource

    source = ShapesSource(config.data.shapes, "test")
    with files.convert_write_errors(folder, OUT_ADVICE):
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(min(IMAGE_COUNT, len(source))):
            Image.fromarray(source.image(index)).save(folder / f"{source.annotation(index).image_id}.png")


def format_next_steps(options: DemoOptions) -> str:
    """Return the text about what to do after the demo, with commands that can be copied into a shell."""
    from ssd_jax.training.summary import format_command

    out = options.out
    if options.train:
        third = format_command("predict", str(out / RUN), str(out / IMAGES), "--out", str(out / "predictions"))
        commands = {third: "detects shapes in generated images, with the new detector"}
    else:
        commands = {format_command("demo", "--out", str(out)): "also trains a detector, on generated images"}
    commands |= {
        format_command("models"): "lists the detectors that you can use by name",
        format_command("train", "own_data", "--help"): "lists the options to train on your own images",
    }
    return "\n".join(
        [
            f"Look at the images in {out / 'photographs'}. Next:",
            *(f"  {command}\n      {text}" for command, text in commands.items()),
        ]
    )
