"""Cross-validation: detections in every image of a split by a network that was not trained on this image.

The images are divided into folds. For each fold, a network is trained on all other folds, with the settings of a run,
and detects objects in the images of the fold. The networks are run folders, so that training can be resumed.
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from ssd_jax.config import Config
from ssd_jax.data.source import Source
from ssd_jax.data.splits import JoinedSource, Term
from ssd_jax.errors import UserError
from ssd_jax.evaluation.evaluator import predict_split
from ssd_jax.inference.detections import NO_DETECTIONS, ImageDetections
from ssd_jax.inference.restoring import restore_params
from ssd_jax.runs import data_fingerprint, run_folder
from ssd_jax.runs.log import read_log
from ssd_jax.runtime.progress import show_progress
from ssd_jax.runtime.task import format_duration
from ssd_jax.training.loop import Trainer


class FoldPlan(NamedTuple):
    """Steps of a cross-validation, before it starts."""

    config: Config
    """Config of the networks."""
    folders: tuple[Path, ...]
    """Run folder of the network of each fold."""
    folds: Int64[np.ndarray, " n"]
    """Fold of each image, counted from 0."""


def assign_folds(source: Source, folds: int) -> Int64[np.ndarray, " n"]:
    """Return the fold of each image, counted from 0, which a hash of its id decides.

    All folds have the same number of images, to within one. The order of the images has no influence.

    Args:
        source: The split.
        folds: Number of folds.

    Raises:
        UserError: If there are fewer than two folds, or fewer images than folds.
    """
    if not 2 <= folds <= len(source):
        raise UserError(f"--folds {folds}: expected at least 2, and at most as many as the {len(source)} images")
    ids = [annotation.image_id.encode(errors="surrogateescape") for annotation in source.annotations()]
    keys = [hashlib.blake2b(image_id, digest_size=16).digest() for image_id in ids]
    order = sorted(range(len(keys)), key=lambda i: (keys[i], i))
    result = np.zeros(len(keys), np.int64)
    result[order] = np.arange(len(keys)) * folds // len(keys)
    return result


def plan_folds(config: Config, source: Source, folds: int, folder: Path, steps: int | None = None) -> FoldPlan:
    """Return the plan of a cross-validation. Nothing is written.

    Args:
        config: Config of a finished run, whose number of steps is known.
        source: The split.
        folds: Number of folds.
        folder: Folder for the run folders.
        steps: Number of training steps of each network. None: as many as the run.

    Raises:
        UserError: As `assign_folds`, or if ``steps`` is below 1.
    """
    if steps is not None and steps < 1:
        raise UserError(f"--steps {steps}: expected at least 1")
    train = dataclasses.replace(
        config.train,
        steps=steps or config.train.known_steps, epochs=None, steps_range=None, minutes=None, eval_every=0,
    )  # fmt: skip
    folders = tuple(folder / f"{k}_of_{folds}_{train.steps}_steps" for k in range(1, folds + 1))
    return FoldPlan(dataclasses.replace(config, train=train), folders, assign_folds(source, folds))


def describe_cost(plan: FoldPlan, run: Path | None) -> str:
    """Return a sentence about the number of training steps that are left, and the time if the speed is known.

    Args:
        plan: The plan.
        run: Folder of a run with the same settings, whose log contains the speed on this machine.
    """
    train, folders = plan.config.train, plan.folders
    done = [max(run_folder.list_checkpoint_steps(folder / "checkpoints"), default=0) for folder in folders]
    left = sum(max(train.known_steps - steps, 0) for steps in done)
    text = f"Cross-validation: {len(folders)} networks of {train.known_steps} steps, {left:,} steps to train"
    logs = [line["images_per_second"] for folder in (run, *folders) if folder for line in read_log(folder)]
    speeds = [speed for speed in logs if speed > 0]
    if left and speeds:
        seconds = left * train.batch_size / median(speeds)
        return f"{text}, about {format_duration(seconds)} at the speed of earlier steps"
    return text


def detect_in_folds(plan: FoldPlan, source: Source, unread: dict[int, str], *, shift: int = 0) -> list[ImageDetections]:
    """Train the network of each fold, and return the detections in every image by the network of its fold.

    Networks that are trained already are used as they are. If a signal stops the training, the same call continues it.

    Args:
        plan: The plan.
        source: The split.
        unread: Dict to which the position and the error message of each unreadable image are added.
        shift: Number of folds by which the networks are exchanged. With any number but 0, each image is judged by a
            network that was trained on it, for comparisons.

    Raises:
        UserError: If a network cannot be trained, or was trained with other settings or data.
        KeyboardInterrupt: If a signal has stopped the training. The steps so far are saved.
    """
    detections = [NO_DETECTIONS] * len(source)
    for k, folder in enumerate(plan.folders):
        title = f"fold {k + 1} of {len(plan.folders)}"
        outside = np.flatnonzero(plan.folds != k).tolist()
        inside = np.flatnonzero(plan.folds == (k + shift) % len(plan.folders)).tolist()
        skipped: dict[int, str] = {}
        learned, judged = _select(source, outside), _select(source, inside)
        found = _train_and_detect(plan.config, folder, learned, judged, skipped, title)
        unread |= {inside[position]: message for position, message in skipped.items()}
        for position, image_detections in zip(inside, found, strict=True):
            detections[position] = image_detections
    return detections


def _train_and_detect(
    config: Config, folder: Path, learned: Source, judged: Source, unread: dict[int, str], title: str
) -> list[ImageDetections]:
    """Train a network on some images, unless it is trained already, and return its detections in others."""
    trainer = _train(config, folder, learned, title)
    with show_progress(f"{title}: detecting", len(judged)) as task:
        params, _ = restore_params(folder, config, "last", trainer.mesh)
        return predict_split(trainer.predict, params, judged, config, trainer.mesh, task.update, unread)


def _select(source: Source, positions: Sequence[int]) -> Source:
    return JoinedSource([(Term("", "", "", ""), source, positions)])


def _train(config: Config, folder: Path, source: Source, title: str) -> Trainer:
    """Train a network in a run folder to its last step, or resume its training, and return the trainer."""
    trainer = Trainer(config, folder, source, None)
    with run_folder.hold_exclusive_lock(folder):
        run_folder.create_or_resume_run(folder, config)
        _check_same_data(folder, source)
        done = max(run_folder.list_checkpoint_steps(folder / "checkpoints"), default=0)
        if done >= config.train.known_steps:
            return trainer
        print(f"{title}: training on {len(source)} images in {folder}")
        last = trainer.run()
    if last != config.train.known_steps:
        raise KeyboardInterrupt(
            f"Stopped after step {last} of {title}, which is saved. The same command continues the audit."
        )
    return trainer


def _check_same_data(folder: Path, source: Source) -> None:
    """Check that a network is trained on the same images and boxes as before. Otherwise, it may have learned others.

    Raises:
        UserError: If they have changed.
    """
    if not source.in_memory:
        return
    before, now = data_fingerprint.read_fingerprints(folder), data_fingerprint.compute_fingerprint(source)
    if before.get("train", now) != now:
        raise UserError(
            f"{folder}: the images or annotations have changed since this network was trained on them. Delete the "
            "folder, or name another --out, to train new networks"
        )
    data_fingerprint.update_fingerprints(folder, {"train": source})
