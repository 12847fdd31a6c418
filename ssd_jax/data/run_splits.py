"""Open the splits on which a run is trained and evaluated, and print information about them."""

import dataclasses
from collections.abc import Sequence

from ssd_jax.config import Config
from ssd_jax.data.check.contents import check_contents, count_images_and_objects
from ssd_jax.data.class_names import describe_class_difference
from ssd_jax.data.formats.open import is_generated, is_tfds, missing_split_message, open_source
from ssd_jax.data.problems import Problems, summarise_problems
from ssd_jax.data.source import Source, count_dropped_objects
from ssd_jax.data.splits import select_required_splits
from ssd_jax.errors import UserError, escape_text
from ssd_jax.files import make_user_path
from ssd_jax.plurals import format_count


def with_data_root(config: Config, root: str) -> Config:
    """Return the config with another ``data.root``, which is made absolute so that it is valid in any working folder.

    ``shapes`` and names of tensorflow-datasets stay as they are; for the latter, ``data.tfds_dir`` becomes absolute.
    """
    data = dataclasses.replace(config.data, root=root)
    if is_tfds(data):
        data = dataclasses.replace(data, tfds_dir=data.tfds_dir and str(make_user_path(data.tfds_dir).absolute()))
    elif root and not is_generated(data):
        data = dataclasses.replace(data, root=str(make_user_path(root).absolute()))
    return dataclasses.replace(config, data=data)


def open_training_splits(config: Config) -> tuple[Config, Source, Source | None]:
    """Open the train split, and the val split if the run evaluates during training.

    Args:
        config: Config of the run. Its ``model.class_names`` may be empty.

    Returns:
        The config with the class names of the data, the train split, and the val split (None if it is not needed).

    Raises:
        UserError: If a split cannot be opened, or has no annotations.
    """
    train_source = open_split(config, config.data.train_split)
    model = dataclasses.replace(config.model, class_names=tuple(train_source.class_names))
    config = dataclasses.replace(config, model=model)
    val_source = _open_val_split(config) if config.train.eval_every != 0 else None
    for split, source in ((config.data.train_split, train_source), (config.data.val_split, val_source)):
        if source is not None and not source.annotated:
            option = "train_split" if source is train_source else "val_split"
            raise UserError(
                f"{config.data.root}: the split '{split}' has no annotations, so it cannot be used during training. "
                f"Name another split with --data.{option}. `evaluate` can detect objects in the images of this split"
            )
    check_training_splits(config, train_source, val_source).raise_collected_errors()
    return config, train_source, val_source


def check_training_splits(config: Config, train_source: Source, val_source: Source | None) -> Problems:
    """Return the problems of the contents of the train and val splits, such as classes without objects.

    Splits whose annotations are not in memory are not checked, because reading all of them may take minutes.
    """
    problems = Problems(raise_errors=False)
    splits = {config.data.train_split: train_source}
    if val_source is not None:
        splits.setdefault(config.data.val_split, val_source)
    if all(source.in_memory for source in splits.values()):
        counts = {split: count_images_and_objects(source) for split, source in splits.items()}
        check_contents(splits, counts, config, problems)
    return problems


def _open_val_split(config: Config) -> Source:
    split = config.data.val_split
    try:
        return open_split(config, split)
    except UserError as error:
        if missing_split_message(select_required_splits(config), split) is None:
            raise
        raise UserError(
            *error.args,
            "The best checkpoint is chosen on this split. Name another split with --data.val_split, or "
            "disable evaluation during training with --train.eval_every 0",
        ) from None


def open_evaluation_split(config: Config, split: str | None) -> tuple[str, Source]:
    """Open the split on which a run is evaluated.

    Args:
        config: Config of a trained run.
        split: Name of the split. None stands for ``data.test_split``, or for ``data.val_split`` if the data set has
            no test split.

    Returns:
        The name of the opened split, and its source.

    Raises:
        UserError: If the split cannot be opened.
    """
    if split is None:
        split = config.data.test_split
        missing = missing_split_message(select_required_splits(config), split)
        if missing:
            split = config.data.val_split
            reason = "the split on which the best checkpoint was chosen."
            print(f"{escape_text(missing)} Evaluating on '{split}' instead, {reason}")
    return split, open_split(config, split)


def open_split(config: Config, split: str) -> Source:
    """Open a split with the class names of the run.

    Raises:
        UserError: If the split cannot be opened, if files are malformed or missing, or if the split has classes that
            the run does not know. The message has a line for all errors that are alike and, in the latter case, lists
            the differences of the classes.
    """
    problems = Problems(raise_errors=False)
    try:
        source = open_source(select_required_splits(config), split, config.model.class_names, problems)
        problems.raise_collected_errors()
    except UserError as error:
        raise UserError(*error.args, *_describe_class_mismatch(config, split)) from error
    return source


def _describe_class_mismatch(config: Config, split: str) -> list[str]:
    """Return lines about the differences between the classes of the data and the classes of the run.

    There are none if the run knows all classes of the data.
    """
    names = config.model.class_names
    try:
        data_names = (
            open_source(select_required_splits(config), split, problems=Problems(raise_errors=False)).class_names
            if names
            else ()
        )
    except UserError:
        return []
    if set(data_names) <= set(names):
        return []
    difference = describe_class_difference(names, data_names, old_place="the run")
    return ["The classes of the data differ from those of the run:", *difference.splitlines()]


def describe_split(source: Source) -> str:
    """Return the number of images of a split and, if they are known without reading files, of its objects."""
    images = format_count(len(source), "images")
    if not source.in_memory:
        return images
    return f"{images}, {format_count(count_images_and_objects(source).total, 'objects')}"


def print_split(name: str, source: Source, training_config: Config | None = None) -> None:
    """Print the numbers of images and objects of a split, and the notes about its problems.

    Args:
        name: Name of the split to print.
        source: The split.
        training_config: Config of the run that trains on this split, or None. If given, notes about objects and
            images that training will not use are also printed.
    """
    print(f"{name}: {describe_split(source)}")
    print_notes(source, training_config)


def print_notes(source: Source, training_config: Config | None = None, printed: Sequence[str] = ()) -> None:
    """Print the notes about the problems of a split, see `print_split`, without those that were ``printed`` before."""
    notes = [note for note in source.notes if note not in printed]
    if training_config is not None and source.in_memory:
        cut = count_dropped_objects(source, training_config.data)
        if cut:
            notes.append(
                f"{format_count(cut, 'objects are not used in training')}, because their images have more than "
                f"{training_config.data.max_objects} objects; increase --data.max_objects to use all of them"
            )
        empty = sum(len(annotation.labels) == 0 for annotation in source.annotations())
        if empty and not training_config.loss.min_negatives:
            notes.append(
                f"{format_count(empty, 'images have no objects and are ignored by the loss; to include them, use')} "
                "--loss.min_negatives 3, each with the weight of an image with one matched default box"
            )
    for note in notes:
        print(f"  note: {escape_text(note)}")


def print_content_warnings(config: Config, train_source: Source, val_source: Source | None) -> None:
    """Print warnings about the contents of the train and val splits, see `check_training_splits`."""
    for line in summarise_problems(check_training_splits(config, train_source, val_source).collected):
        print(f"  warning: {escape_text(line)}")


def print_overlap(train_source: Source, val_source: Source) -> None:
    """Print the number of images that are in both the train and the val split, if there are any.

    Images are compared by their paths.
    """
    if train_source.in_memory and val_source.in_memory:
        train_files = {annotation.file for annotation in train_source.annotations()}
        shared = sum(annotation.file in train_files for annotation in val_source.annotations())
        if shared:
            print(
                f"  note: {shared} of the {len(val_source)} val images are also in the train split; mAP is not "
                "meaningful for them"
            )
