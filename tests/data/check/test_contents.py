"""Tests of checks of the contents of a data set, which training and check-data share."""

import dataclasses

import pytest

from ssd_jax.config import Config, Data, Train
from ssd_jax.data.check.contents import SplitCount, check_class_names, check_contents, count_images_and_objects
from ssd_jax.data.problems import Kind, Problems
from ssd_jax.data.source import FolderSource, make_annotation
from ssd_jax.errors import UserError

CLASSES = ("cat", "dog", "cow", "owl")
BOX = (2.0, 2.0, 30.0, 20.0)


def make_source(*images, class_names=CLASSES):
    """Return a source with an image for each list of (label, box)."""
    annotations = []
    for k, objects in enumerate(images):
        labels, boxes = [label for label, _ in objects], [box for _, box in objects]
        annotations.append(make_annotation(f"i{k}", f"i{k}.jpg", (40, 30), boxes, labels))
    return FolderSource(annotations, class_names)


CONFIG = Config(data=Data(root="data"))


def find_problems(splits, config=CONFIG, raise_errors=False):
    problems = Problems(raise_errors=raise_errors)
    counts = {split: count_images_and_objects(source) for split, source in splits.items()}
    check_contents(splits, counts, config, problems)
    return problems.collected


def test_check_contents_finds_nothing_in_complete_splits():
    complete = [(label, BOX) for label in (1, 2, 3, 4)]
    assert find_problems({"train": make_source(complete, complete), "val": make_source([(1, BOX)])}) == []


def test_check_contents_finds_a_train_split_without_objects():
    splits = {"train": make_source([], []), "val": make_source([(1, BOX)])}
    (problem,) = find_problems(splits)
    assert problem.kind is Kind.NO_OBJECTS and "--data.train_split" in problem.text
    with pytest.raises(UserError, match="nothing to learn"):
        find_problems(splits, raise_errors=True)


def test_check_contents_finds_a_val_split_without_objects_only_if_a_checkpoint_is_chosen_on_it():
    complete = [(label, BOX) for label in (1, 2, 3, 4)]
    splits = {"train": make_source(complete, complete), "val": make_source([], [])}
    (problem,) = find_problems(splits)
    assert problem.kind is Kind.NO_BEST and "--data.val_split" in problem.text and "best" in problem.text
    assert find_problems(splits, dataclasses.replace(CONFIG, train=Train(eval_every=0))) == []
    splits["val"].annotated = False
    assert find_problems(splits) == []


def test_check_contents_finds_classes_without_objects_and_with_one_object_in_train():
    train, val = [(1, BOX), (1, BOX), (2, BOX)], [(3, BOX)]
    problems = find_problems({"train": make_source(train), "val": make_source(val), "test": make_source(val)})
    assert [(p.kind, p.text) for p in problems] == [
        (Kind.ONE_OBJECT, "'dog'"),
        (Kind.NOT_IN_TRAIN, "'cow' (only in val and test)"),
        (Kind.NOT_IN_TRAIN, "'owl' (in no split)"),
    ]


@pytest.mark.parametrize(
    ("box", "found"),
    [
        ((5, 5, 5.001, 20), True),
        ((5, 5, 25, 5.5), True),
        ((39.5, 5, 60, 20), True),  # half a pixel is inside the image
        ((5, 5, 6, 20), False),
        ((5, 5, 5.999, 20), False),
    ],
)
def test_check_contents_finds_boxes_narrower_than_a_pixel(box, found):
    source = make_source([(1, BOX), (2, box), (1, BOX), (2, BOX)], [], class_names=("cat", "dog"))
    problems = find_problems({"train": source})
    assert [(p.kind, p.file) for p in problems] == [(Kind.SLIVER, "i0.jpg")] * found
    assert all("dog" in p.text for p in problems)


@pytest.mark.parametrize("name", ["background", "_background_", "__background__", "Background", "bg"])
def test_check_class_names_finds_names_of_the_background(name):
    problems = Problems()
    check_class_names("data", {name: 5, "cat": 3}, problems)
    (problem,) = problems.collected
    assert problem.kind is Kind.BACKGROUND_CLASS and name in problem.text


@pytest.mark.parametrize(
    ("objects", "found"),
    [
        ({"helmet": 500, "helmat": 3}, True),
        ({"helmat": 3, "vest": 9, "helmet": 500}, True),
        ({"helmet": 500, "helmat": 300}, False),  # as frequent as another class
        ({"helmet": 500, "helmat": 0}, False),  # a class without objects is another problem
        ({"type10": 500, "type11": 3}, False),
        ({"bus": 500, "bud": 3}, False),  # too short to tell
        ({"Helmet": 500, "helmet ": 400}, True),
    ],
)
def test_check_class_names_finds_misspelt_names(objects, found):
    problems = Problems()
    check_class_names("data", objects, problems)
    assert [p.kind for p in problems.collected] == [Kind.SIMILAR_NAMES] * found


def test_count_images_and_objects_leaves_out_crowds():
    annotation = make_annotation("a", "a.jpg", (40, 30), [BOX, BOX], [1, 1], crowd=[True, False])
    crowd = make_annotation("b", "b.jpg", (40, 30), [BOX], [2], crowd=[True])
    count = count_images_and_objects(FolderSource([annotation, crowd], ("cat", "dog")))
    assert count == SplitCount(2, 1, {"cat": 1, "dog": 0}) and count.total == 1
