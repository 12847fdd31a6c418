"""The splits that a command works on: opened with the run's classes, and described on the screen."""

import dataclasses

from ssd_jax.config import Config
from ssd_jax.data.class_names import class_difference
from ssd_jax.data.formats.open import missing_split, open_source
from ssd_jax.data.loader import objects_over_padding
from ssd_jax.data.problems import Problems
from ssd_jax.data.source import Source
from ssd_jax.errors import UserError


def open_data(config: Config) -> tuple[Config, Source, Source | None]:
    """The config with its class names, the train split, and the val split if training measures."""
    train_source = open_split(config, config.data.train_split)
    model = dataclasses.replace(config.model, class_names=tuple(train_source.class_names))
    config = dataclasses.replace(config, model=model)
    val_source = None
    if config.train.eval_every:
        val_source = open_val_source(config)
    for split, source in ((config.data.train_split, train_source), (config.data.val_split, val_source)):
        if source is not None and not source.annotated:
            raise UserError(
                f"{config.data.root}: the split '{split}' lists images without boxes. Name another to train and to "
                "measure on; evaluate.py can detect in this one"
            )
    return config, train_source, val_source


def open_split(config: Config, split: str) -> Source:
    """A split with the run's classes. Where the data has others, the UserError says how the lists differ."""
    try:
        return open_source(config.data, split, config.model.class_names)
    except UserError as error:
        raise UserError(f"{error}{unknown_classes(config, split)}") from error


def unknown_classes(config: Config, split: str) -> str:
    """How the data's classes differ from the run's, to follow an error; empty where the run knows them all."""
    names = config.model.class_names
    try:
        found = open_source(config.data, split, problems=Problems(stop=False)).class_names if names else ()
    except UserError:
        return ""
    if set(found) <= set(names):
        return ""
    return f"\nThe data's classes are not those of the run:\n{class_difference(names, found, there='the run')}"


def open_val_source(config: Config) -> Source:
    split = config.data.val_split
    try:
        return open_split(config, split)
    except UserError as error:
        if missing_split(config.data, split) is None:
            raise
        raise UserError(
            f"{error}\nTraining measures on it to choose the best checkpoint: name another with --data.val_split, or "
            "measure nothing with --train.eval_every 0"
        ) from None


def describe(config: Config) -> str:
    model = config.model
    return (
        f"{model.image_size} px, {model.default_boxes.count} default boxes, {len(model.class_names)} classes "
        f"({', '.join(model.class_names[:8])}{', ...' if len(model.class_names) > 8 else ''}), "
        f"{config.train.steps} steps of {config.train.batch_size} images"
    )


def describe_source(name: str, source: Source, training: Config | None = None) -> None:
    """Prints how many images there are and what is odd; of a split to train on, what teaches nothing, too."""
    print(f"{name}: {len(source)} images")
    notes = list(source.notes)
    if training is not None and source.in_memory:
        cut = objects_over_padding(source, training.data)
        if cut:
            notes.append(
                f"{cut} objects are left out of training, in images with more than {training.data.max_objects}; to "
                "have them all, raise --data.max_objects"
            )
        empty = sum(len(source.annotation(i).labels) == 0 for i in range(len(source)))
        if empty and not training.loss.min_negatives:
            notes.append(
                f"{empty} images hold no objects and teach nothing; with --loss.min_negatives 3 each counts as much as "
                "one with a single match"
            )
    for note in notes:
        print(f"  note: {note}")


def describe_overlap(train_source: Source, val_source: Source) -> None:
    """Prints how many images, by file, are both trained on and measured on while training."""
    if train_source.in_memory and val_source.in_memory:
        trained = {train_source.annotation(i).file for i in range(len(train_source))}
        shared = sum(val_source.annotation(i).file in trained for i in range(len(val_source)))
        if shared:
            print(f"  note: {shared} of the {len(val_source)} val images are trained on; mAP says nothing of new ones")


def open_evaluation_split(config: Config, split: str | None) -> tuple[str, Source]:
    """The split asked for; else data.test_split; else, where the data has none such, data.val_split."""
    if split is None:
        split = config.data.test_split
        missing = missing_split(config.data, split)
        if missing:
            split = config.data.val_split
            print(f"{missing} Measuring on '{split}' instead, the split that the best checkpoint was chosen on.")
    return split, open_split(config, split)
