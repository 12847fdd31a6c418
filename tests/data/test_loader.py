"""Tests of the order and the content of batches, and of resuming a stream of batches."""

import json
import logging
import time

import numpy as np
import pytest
from PIL import Image

from ssd_jax.config import Data
from ssd_jax.data.image import fitted_size
from ssd_jax.data.loader import canvas_shape, eval_batches, single_image_batch, stream_position, train_batches
from ssd_jax.data.source import Source, count_dropped_objects, make_annotation
from ssd_jax.errors import UserError


class FakeSource(Source):
    """Source with images of given sizes (width, height). The value of every pixel is the index of the image.

    Reading an image whose index is in ``broken`` raises a UserError. Reading image i takes ``wait * (i % 3)`` seconds.
    """

    class_names = ("cat",)
    in_memory = True

    def __init__(self, sizes, objects=None, broken=(), wait=0.0):
        self.all_sizes, self.broken, self.wait = sizes, broken, wait
        self.objects = objects or {}

    def __len__(self):
        return len(self.all_sizes)

    def sizes(self):
        return self.all_sizes

    def annotation(self, index):
        objects = self.objects.get(index, {"boxes_px": [], "labels": []})
        return make_annotation(str(index), f"{index}.jpg", self.all_sizes[index], **objects)

    def image(self, index):
        time.sleep(self.wait * (index % 3))
        if index in self.broken:
            raise UserError(f"{index}.jpg: broken")
        width, height = self.all_sizes[index]
        return np.full((height, width, 3), index, np.uint8)


def make_small_source(count, **options):
    return FakeSource([(16, 8)] * count, **options)


def take_batches(batches, count):
    return [next(batches) for _ in range(count)]


def concatenate_field(batches, field):
    return np.concatenate([getattr(batch, field) for batch in batches])


# ---- order ----


def test_train_batches_have_a_new_order_in_every_epoch():
    batches = take_batches(train_batches(make_small_source(7), Data(), 3, seed=0), 14)
    index, epoch = concatenate_field(batches, "index"), concatenate_field(batches, "epoch")
    np.testing.assert_array_equal(epoch, np.arange(42) // 7)
    epochs = index.reshape(6, 7)
    np.testing.assert_array_equal(np.sort(epochs), np.tile(np.arange(7), (6, 1)))
    assert len({tuple(order) for order in epochs}) == 6


def test_train_batches_contain_each_image_with_the_index_of_the_image():
    for batch in take_batches(train_batches(make_small_source(7, wait=0.002), Data(), 3, seed=0), 8):
        np.testing.assert_array_equal(batch.canvas[:, 0, 0, 0], batch.index)


def test_train_batches_may_be_larger_than_the_source():
    batch = next(train_batches(make_small_source(3), Data(), 8, seed=0))
    np.testing.assert_array_equal(batch.epoch, [0, 0, 0, 1, 1, 1, 2, 2])


def test_train_batches_depend_on_the_seed():
    first, again, other = (
        concatenate_field(take_batches(train_batches(make_small_source(30), Data(), 10, seed), 3), "index")
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize("after", [0, 5])
def test_train_batches_resume_from_a_saved_state(after):
    """The state is converted to JSON and back. It must not count batches that threads have read ahead."""
    source = make_small_source(7, wait=0.002)
    stream = train_batches(source, Data(), 4, seed=3)
    take_batches(stream, after)
    time.sleep(0.05)
    state = json.dumps(stream.get_state())
    expected = take_batches(stream, 5)
    fresh = train_batches(source, Data(), 4, seed=3)
    fresh.set_state(json.loads(state))
    used = train_batches(source, Data(), 4, seed=3)
    take_batches(used, 9)
    used.set_state(json.loads(state))
    stream.set_state(json.loads(state))
    for resumed in (fresh, used, stream):
        for wanted, got in zip(expected, take_batches(resumed, 5), strict=True):
            for a, b in zip(wanted, got, strict=True):
                np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("processes", [2, 4])
def test_train_batches_do_not_depend_on_the_number_of_processes(processes):
    all_rows = take_batches(train_batches(make_small_source(7), Data(), 4, seed=0), 6)
    share = 4 // processes
    shares = [[3, 1, 0, 2][p * share : (p + 1) * share] for p in range(processes)]  # rows of each process, unordered
    streams = [train_batches(make_small_source(7), Data(), 4, seed=0, rows=rows) for rows in shares]
    for expected in all_rows:
        for rows, stream in zip(shares, streams, strict=True):
            for wanted, got in zip(expected, next(stream), strict=True):
                np.testing.assert_array_equal(wanted[rows], got)
    assert {json.dumps(stream.get_state()) for stream in streams} == {json.dumps({"next_index": 6})}, (
        "the position counts batches"
    )


@pytest.mark.parametrize("length", [7, 8])
def test_eval_batches_do_not_depend_on_the_number_of_processes(length):
    all_rows = list(eval_batches(make_small_source(length), Data(), 4))
    for rows in ([0, 1], [2, 3]):
        for expected, part in zip(all_rows, eval_batches(make_small_source(length), Data(), 4, rows=rows), strict=True):
            for wanted, got in zip(expected, part, strict=True):
                np.testing.assert_array_equal(wanted[rows], got)


def test_eval_batches_contain_each_image_once_in_order_with_padding():
    batches = list(eval_batches(make_small_source(7, wait=0.002), Data(), 3))
    assert len(batches) == 3
    np.testing.assert_array_equal(concatenate_field(batches, "index"), [0, 1, 2, 3, 4, 5, 6, -1, -1])
    np.testing.assert_array_equal(concatenate_field(batches, "valid"), [True] * 7 + [False] * 2)
    np.testing.assert_array_equal(concatenate_field(batches, "epoch"), 0)
    assert {batch.canvas.shape for batch in batches} == {(3, 32, 32, 3)}


def test_eval_batches_do_not_end_with_an_empty_batch():
    assert [batch.valid.all() for batch in eval_batches(make_small_source(6), Data(), 3)] == [True, True]


def test_single_image_batch_equals_the_slot_at_the_stream_position():
    source = FakeSource([(8 + k, 8) for k in range(5)], {2: {"boxes_px": [[0, 0, 4, 4]], "labels": [1]}})
    batches = take_batches(train_batches(source, Data(), 3, seed=4), 5)
    for index, epoch in ((2, 0), (0, 1), (4, 2)):
        step, slot = divmod(stream_position(5, 4, index, epoch), 3)
        for expected, result in zip(batches[step], single_image_batch(source, Data(), index, epoch), strict=True):
            np.testing.assert_array_equal(result[0], expected[slot])


# ---- content ----


def test_batch_has_the_documented_shapes_and_dtypes():
    boxes = {0: {"boxes_px": [[0, 0, 4, 4]], "labels": [1]}}
    batch = next(train_batches(make_small_source(3, objects=boxes), Data(max_objects=5), 3, seed=0))
    assert [(name, array.shape, array.dtype.name) for name, array in batch._asdict().items()] == [
        ("canvas", (3, 32, 32, 3), "uint8"),
        ("height", (3,), "int32"),
        ("width", (3,), "int32"),
        ("gt_boxes", (3, 5, 4), "float32"),
        ("gt_labels", (3, 5), "int32"),
        ("gt_difficult", (3, 5), "bool"),
        ("index", (3,), "int32"),
        ("epoch", (3,), "int32"),
        ("valid", (3,), "bool"),
    ]


def test_batch_boxes_are_normalised_and_clipped_to_the_image():
    objects = {0: {"boxes_px": [[4, 2, 8, 8], [-3, 0, 20, 4]], "labels": [1, 1], "difficult": [False, True]}}
    batch = next(eval_batches(make_small_source(1, objects=objects), Data(max_objects=3), 1))
    np.testing.assert_array_equal(batch.gt_boxes[0], [[0.25, 0.25, 0.5, 1], [0, 0, 1, 0.5], [0, 0, 0, 0]])
    np.testing.assert_array_equal(batch.gt_labels[0], [1, 1, 0])
    np.testing.assert_array_equal(batch.gt_difficult[0], [False, True, False])
    np.testing.assert_array_equal([batch.height[0], batch.width[0]], [8, 16])
    assert (batch.canvas[0, 8:] == 0).all() and (batch.canvas[0, :, 16:] == 0).all()


def test_batches_leave_out_crowds_and_optionally_difficult_objects():
    objects = {
        "boxes_px": [[0, 0, k, k] for k in (1, 2, 4, 8)],
        "labels": [1, 1, 1, 1],
        "difficult": [False, True, False, True],
        "crowd": [False, False, True, True],
    }
    source = make_small_source(1, objects={0: objects})
    with_difficult = next(train_batches(source, Data(), 1, seed=0))
    without = next(train_batches(source, Data(train_on_difficult=False), 1, seed=0))
    evaluated = next(eval_batches(source, Data(train_on_difficult=False), 1))
    np.testing.assert_array_equal(with_difficult.gt_boxes[0, :3, 3], [1 / 8, 2 / 8, 0])
    np.testing.assert_array_equal(without.gt_boxes[0, :3, 3], [1 / 8, 0, 0])
    np.testing.assert_array_equal(evaluated.gt_difficult[0, :3], [False, True, False])


def test_objects_beyond_max_objects_are_dropped_and_counted():
    boxes = {"boxes_px": [[0, 0, k, 4] for k in range(1, 6)], "labels": [1] * 5}
    crowd = {"boxes_px": [[0, 0, 4, 4]] * 4, "labels": [1] * 4, "crowd": [False, False, True, True]}
    source = make_small_source(3, objects={0: boxes, 1: crowd})
    batch = next(eval_batches(source, Data(max_objects=2), 1))
    np.testing.assert_array_equal(batch.gt_boxes[0, :, 2], [1 / 16, 2 / 16])
    assert [count_dropped_objects(source, Data(max_objects=n)) for n in (1, 2, 4, 5)] == [5, 3, 1, 0]


def test_unreadable_image_keeps_its_slot_and_is_logged_once(caplog):
    boxes = {2: {"boxes_px": [[0, 0, 4, 4]], "labels": [1]}}
    good, bad = make_small_source(5, objects=boxes), make_small_source(5, objects=boxes, broken={2})
    stream = train_batches(bad, Data(), 5, seed=0)
    with caplog.at_level(logging.WARNING):
        batches = take_batches(stream, 4)
    expected = take_batches(train_batches(good, Data(), 5, seed=0), 4)
    for got, wanted in zip(batches, expected, strict=True):
        np.testing.assert_array_equal(got.index, wanted.index)
        np.testing.assert_array_equal(got.epoch, wanted.epoch)
        np.testing.assert_array_equal(got.valid, got.index != 2)
        broken = got.index == 2
        assert not got.canvas[broken].any() and not got.gt_labels[broken].any()
        np.testing.assert_array_equal(got.canvas[~broken], wanted.canvas[~broken])
        assert (got.height >= 1).all() and (got.width >= 1).all()
    assert stream.unreadable == {2: "2.jpg: broken"}
    assert [record.message for record in caplog.records] == ["2.jpg: broken"]


@pytest.mark.parametrize("batches", [lambda *a: train_batches(*a, seed=0), eval_batches])
def test_strict_batches_raise_for_an_unreadable_image(batches):
    with pytest.raises(UserError, match=r"^2\.jpg: broken\n.*--strict"):
        take_batches(batches(make_small_source(4, broken={2}), Data(strict=True), 4), 1)


def test_unreadable_image_keeps_its_slot_in_evaluation():
    (batch,) = eval_batches(make_small_source(2, broken={0}), Data(), 2)
    np.testing.assert_array_equal(batch.valid, [False, True])
    np.testing.assert_array_equal(batch.index, [0, 1])


def test_batches_propagate_exceptions_that_are_not_user_errors():
    class Faulty(FakeSource):
        def image(self, index):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        next(train_batches(Faulty([(8, 8)]), Data(), 1, seed=0))


# ---- canvas ----


@pytest.mark.parametrize(
    ("sizes", "canvas", "expected"),
    [
        ([(640, 480)], 640, (480, 640)),
        ([(128, 128)] * 2, 640, (128, 128)),
        ([(500, 375), (375, 500)], 640, (512, 512)),
        ([(33, 31)], 640, (32, 64)),  # sides are rounded up to a multiple of 32
        ([(4000, 3000)], 640, (480, 640)),  # the image is reduced first
        ([(4000, 10)], 640, (32, 640)),
        ([(300, 300)], 300, (300, 300)),  # sides are not rounded up beyond the maximum
        ([(301, 10)], 300, (32, 300)),
        ([(1, 1)], 16, (16, 16)),
    ],
)
def test_canvas_shape_holds_all_images(sizes, canvas, expected):
    assert canvas_shape(FakeSource(sizes), canvas) == expected


@pytest.mark.parametrize(
    ("size", "canvas", "expected"),
    [
        ((480, 640), (480, 640), (480, 640)),
        ((10, 20), (480, 640), (10, 20)),
        ((960, 1280), (480, 640), (480, 640)),
        ((481, 640), (480, 640), (480, 639)),
        ((1, 10_000), (480, 640), (1, 640)),
        ((10_000, 1), (480, 640), (480, 1)),
    ],
)
def test_fitted_size_has_the_aspect_ratio_of_the_image(size, canvas, expected):
    assert fitted_size(size, canvas) == expected


def test_large_image_is_reduced_with_antialiasing():
    """Check that stripes with a width of one pixel become grey, and that normalised boxes do not change."""

    class Striped(FakeSource):
        def image(self, index):
            width, height = self.all_sizes[index]
            return np.broadcast_to((np.arange(width) % 2 * 255).astype(np.uint8)[None, :, None], (height, width, 3))

    objects = {0: {"boxes_px": [[100, 50, 200, 100]], "labels": [1]}}
    batch = next(eval_batches(Striped([(400, 200)], objects), Data(max_image_size=100), 1))
    assert (batch.height[0], batch.width[0]) == (50, 100)
    inside = batch.canvas[0, :50, 2:98].astype(float)
    assert abs(inside.mean() - 127.5) < 2 and inside.std() < 20
    np.testing.assert_array_equal(batch.gt_boxes[0, 0], [0.25, 0.25, 0.5, 0.5])


def test_reduction_does_not_shift_the_image():
    """Check that the dark left half of an image stays exactly the left half."""

    class Halves(FakeSource):
        def image(self, index):
            width, height = self.all_sizes[index]
            row = np.where(np.arange(width) < width // 2, 0, 200).astype(np.uint8)
            return np.broadcast_to(row[None, :, None], (height, width, 3))

    batch = next(eval_batches(Halves([(1000, 1000)]), Data(max_image_size=64), 1))
    row = batch.canvas[0, 32, :, 0].astype(int)
    assert (row[:31] <= 2).all() and (row[33:] >= 198).all()
    assert row[31] + row[32] == pytest.approx(200, abs=4)


def test_small_image_is_placed_unchanged_at_the_top_left():
    pixels = np.random.default_rng(0).integers(1, 256, (8, 16, 3), np.uint8)

    class Noise(FakeSource):
        def image(self, index):
            return pixels

    batch = next(eval_batches(Noise([(16, 8)]), Data(), 1))
    np.testing.assert_array_equal(batch.canvas[0, :8, :16], pixels)
    assert batch.canvas[0].astype(int).sum() == pixels.astype(int).sum()


def test_reduced_image_equals_the_image_resized_by_pillow():
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)

    class Noise(FakeSource):
        def image(self, index):
            return pixels

    batch = next(eval_batches(Noise([(120, 90)]), Data(max_image_size=80), 1))
    expected = Image.fromarray(pixels).resize((80, 60), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(batch.canvas[0, :60, :80].astype(int), np.asarray(expected).astype(int), atol=1)
