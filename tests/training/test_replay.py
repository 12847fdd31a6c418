"""Tests that replayed images equal the augmented images of training, and tests of ``ssd-jax show``."""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest
from helpers import tiny_config
from helpers.cli import run_command, write_voc_folder
from PIL import Image

from ssd_jax.config import Config
from ssd_jax.data.image import read_image
from ssd_jax.data.run_splits import open_split
from ssd_jax.data.source import Source
from ssd_jax.errors import UserError
from ssd_jax.ops.augmentation import augment
from ssd_jax.report.draw import add_caption, class_colours
from ssd_jax.runs import run_folder
from ssd_jax.training import replay, train_step
from ssd_jax.training.loop import Trainer

# Without optimizations, jax 0.12 gives a batch and a single image different bits.
pytestmark = pytest.mark.usefixtures("full_optimization")


class Run(NamedTuple):
    """A run of 10 steps with 4 images each. The split has 11 images, so these are three epochs and seven images."""

    config: Config
    source: Source
    folder: Path
    augmented: dict[tuple[int, int], list[np.ndarray]]
    """Augmented image, boxes and labels from the batches of the trainer; the keys are (index, epoch)."""
    steps: dict[tuple[int, int], int]
    """Training step, counted from 1, that used an image; the keys are (index, epoch)."""


@pytest.fixture(scope="module")
def replay_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a run whose batches were augmented without training. One image is too large for the canvas."""
    base = tmp_path_factory.mktemp("replay")
    root = write_voc_folder(base / "data", {"train": 11})
    for number, size in ((3, (96, 50)), (7, (40, 60))):
        file = root / "JPEGImages" / f"train{number}.png"
        Image.open(file).resize(size).save(file)
    config = tiny_config.get_config()
    config = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, root=str(root)),
        train=dataclasses.replace(config.train, steps=10, eval_every=0, seed=5),
    )
    source = open_split(config, "train")
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, class_names=source.class_names))
    run_folder.create_or_resume_run(base / "run", config)
    trainer = Trainer(config, base / "run", source, None)
    images: dict[tuple[int, int], list[np.ndarray]] = {}
    steps: dict[tuple[int, int], int] = {}
    for step in range(1, 11):
        batch = next(trainer.batches)
        slots = zip(batch.index, batch.epoch, *train_step.augment_batch(config, batch, trainer.mesh), strict=True)
        for index, epoch, *augmented in slots:
            images[int(index), int(epoch)] = augmented
            steps[int(index), int(epoch)] = step
    return Run(config, source, base / "run", images, steps)


def test_replay_is_bitwise_equal_to_the_augmented_batch(replay_run):
    """The images of all epochs are compared, also those of batches that span two epochs."""
    assert len(replay_run.augmented) == 40 and {epoch for _, epoch in replay_run.augmented} == {0, 1, 2, 3}
    for (index, epoch), augmented in replay_run.augmented.items():
        replayed = replay.replay_image(replay_run.config, replay_run.source, f"train{index}", epoch)
        assert (replayed.index, replayed.step) == (index, replay_run.steps[index, epoch])
        assert all(map(are_bitwise_equal, (replayed.image, replayed.boxes, replayed.labels), augmented)), (index, epoch)


def test_replay_equals_the_preview_of_the_first_batch(replay_run):
    positions, (images, boxes, labels) = Trainer(
        replay_run.config, replay_run.folder, replay_run.source, None
    ).augment_next_batch()
    previewed = {image.tobytes(): slot for slot, image in enumerate(images)}
    slots = []
    for index in (index for (index, _), step in replay_run.steps.items() if step == 1):
        replayed = replay.replay_image(replay_run.config, replay_run.source, f"train{index}", 0)
        slots.append(slot := previewed[replayed.image.tobytes()])
        assert positions[slot] == index, "the id of this image is shown"
        assert are_bitwise_equal(replayed.boxes, boxes[slot]) and are_bitwise_equal(replayed.labels, labels[slot])
    assert sorted(slots) == [0, 1, 2, 3]


def test_replay_equals_augment_without_a_batch_up_to_rounding(replay_run):
    """``augment`` is called for a single image without a canvas, so the results agree only up to rounding."""
    for index, epoch in [(4, 0), (7, 1), (5, 2)]:
        annotation, image = replay_run.source.annotation(index), replay_run.source.image(index)
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(5), epoch), index)
        boxes = np.clip(annotation.boxes_px / np.float32([*image.shape[1::-1], *image.shape[1::-1]]), 0, 1)
        padding = (0, 8 - len(boxes))
        picture, boxes, labels = jax.jit(augment, static_argnums=(2, 5))(
            key,
            image,
            64,
            np.pad(boxes, (padding, (0, 0))),
            np.pad(annotation.labels, padding),
            replay_run.config.augment,
        )
        replayed = replay.replay_image(replay_run.config, replay_run.source, f"train{index}", epoch)
        np.testing.assert_allclose(replayed.image, picture, atol=0.05)
        np.testing.assert_allclose(replayed.boxes, boxes, atol=1e-6)
        np.testing.assert_array_equal(replayed.labels, labels)


def are_bitwise_equal(first: np.ndarray, second: np.ndarray) -> bool:
    return (first.dtype, first.shape, first.tobytes()) == (second.dtype, second.shape, second.tobytes())


def test_replay_differs_between_epochs(replay_run):
    pictures = {
        replay.replay_image(replay_run.config, replay_run.source, "train4", epoch).image.tobytes() for epoch in range(3)
    }
    assert len(pictures) == 3


def test_replay_omits_difficult_objects_if_training_omits_them(replay_run):
    data = dataclasses.replace(replay_run.config.data, train_on_difficult=False)
    file = Path(data.root) / "Annotations" / "train2.xml"
    before = file.read_text()
    try:
        file.write_text(before.replace("<object>", "<object><difficult>1</difficult>"))
        source = open_split(dataclasses.replace(replay_run.config, data=data), "train")
        with_them = replay.replay_image(replay_run.config, source, "train2", 0)
        without = replay.replay_image(dataclasses.replace(replay_run.config, data=data), source, "train2", 0)
    finally:
        file.write_text(before)
    assert (with_them.labels > 0).any() and not (without.labels > 0).any()


# ---- the drawing ----


def test_draw_comparison_shows_the_augmented_image_beside_the_original(replay_run):
    replayed = replay.replay_image(replay_run.config, replay_run.source, "train3", 1)
    picture = np.asarray(replay.draw_comparison(replay_run.source, replayed, side=192))
    assert picture.shape == (218, 396, 3), "a gap of 4 around two cells of 192 and their captions"
    # The image of 96 x 50 pixels is enlarged by a factor of 2, and the augmented image of 64 x 64 pixels by 3.
    left, right = picture[50:150, 4:196], picture[4:196, 200:392]
    np.testing.assert_array_equal(
        picture[4:46, 4:196], np.full((42, 192, 3), 40), "background above the image, which is not as high as the cell"
    )
    original = np.asarray(Image.fromarray(replay_run.source.image(3)).resize((192, 100), Image.Resampling.BICUBIC))
    pixels = Image.fromarray(replayed.image.round().clip(0, 255).astype(np.uint8))
    augmented = np.asarray(pixels.resize((192, 192), Image.Resampling.BICUBIC))
    colours = class_colours(replay_run.source.class_names)
    for shown, plain, labels in (
        (left, original, replay_run.source.annotation(3).labels),
        (right, augmented, replayed.labels),
    ):
        changed = (shown != plain).any(-1)
        assert 0 < changed.mean() < 0.6, "lines and names"
        drawn = {tuple(map(int, colour)) for colour in shown[changed]}
        for label in set(labels[labels > 0].tolist()):
            assert colours[replay_run.source.class_names[label - 1]] in drawn
    captions = picture[150:168, 4:196], picture[196:214, 200:392]
    for shown, text in zip(captions, ("train3", f"epoch 1, step {replayed.step}"), strict=True):
        np.testing.assert_array_equal(shown, np.asarray(add_caption(Image.new("RGB", (192, 1)), text))[1:])


# ---- the command ----


def test_show_writes_the_picture(replay_run, capsys):
    assert run_command("show", replay_run.folder, "--image", "train7", "--epoch", "2") == 0
    file = replay_run.folder / "shown" / "train7_epoch2.jpg"
    printed = capsys.readouterr().out
    assert printed.startswith(f"train7, epoch 2: step {replay_run.steps[7, 2]} of 10. Written: {file}\n")
    replayed = replay.replay_image(replay_run.config, replay_run.source, "train7", 2)
    drawn = np.asarray(replay.draw_comparison(replay_run.source, replayed), np.float32)
    assert np.abs(read_image(file) - drawn).mean() < 4, "apart from JPEG compression"


def test_show_counts_objects_outside_the_augmented_image(replay_run, capsys):
    lost = {
        (index, epoch): len(replay_run.source.annotation(index).labels) - int((augmented[2] > 0).sum())
        for (index, epoch), augmented in replay_run.augmented.items()
    }
    assert 0 in lost.values() and max(lost.values()) > 0
    for wanted in (0, max(lost.values())):
        index, epoch = next(key for key, count in lost.items() if count == wanted)
        assert run_command("show", replay_run.folder, "--image", f"train{index}", "--epoch", epoch) == 0
        assert (f"not trained on: {wanted}." in capsys.readouterr().out) == (wanted > 0)


def test_show_accepts_the_options_out_and_data_root(replay_run, tmp_path, capsys):
    moved = tmp_path / "moved"
    Path(replay_run.config.data.root).rename(moved)
    out = tmp_path / "new" / "picture.png"
    try:
        assert (
            run_command(
                "show", replay_run.folder, "--image", "train1", "--epoch", "0", "--out", out, "--data.root", moved
            )
            == 0
        )
    finally:
        moved.rename(replay_run.config.data.root)
    replayed = replay.replay_image(replay_run.config, replay_run.source, "train1", 0)
    np.testing.assert_array_equal(read_image(out), np.asarray(replay.draw_comparison(replay_run.source, replayed)))


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (
            ["--image", "train17", "--epoch", "0"],
            ["11 images", "'train17'", "train7, train1, train10"],
        ),
        (["--image", "zebra", "--epoch", "0"], ["'zebra'", "train0, train1, train2"]),
        (["--image", "train1", "--epoch", "-1"], ["epoch -1:"]),
        (["--image", "train1", "--epoch", "4"], ["epoch 4:", "3.64 epochs of 11 images"]),
        (["--image", "train1", "--epoch", "0", "--out", "picture"], ["--out picture", ".jpg"]),
    ],
)
def test_show_rejects_wrong_options(replay_run, capsys, argv, words):
    capsys.readouterr()
    assert run_command("show", replay_run.folder, *argv) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    for word in words:
        assert word in message


def test_find_step_rejects_images_that_the_run_does_not_reach(replay_run):
    """The run reaches seven of the eleven images in its last epoch."""
    reached = {index for index, epoch in replay_run.augmented if epoch == 3}
    assert len(reached) == 7
    for index in range(11):
        if index in reached:
            assert replay.find_step(replay_run.config, replay_run.source, index, 3) in (9, 10)
        else:
            with pytest.raises(UserError, match="epoch 3:"):
                replay.find_step(replay_run.config, replay_run.source, index, 3)


def test_show_rejects_an_unreadable_image(replay_run, capsys):
    file = Path(replay_run.config.data.root) / "JPEGImages" / "train9.png"
    before = file.read_bytes()
    try:
        file.write_bytes(before[:300])
        assert run_command("show", replay_run.folder, "--image", "train9", "--epoch", "0") == 2
    finally:
        file.write_bytes(before)
    assert "train9.png" in capsys.readouterr().err


def test_show_rejects_a_folder_that_is_not_a_run(tmp_path, capsys):
    assert run_command("show", tmp_path, "--image", "a", "--epoch", "0") == 2
    assert "config.json is missing" in capsys.readouterr().err
