"""Tests of the drawings: colours of box edges, positions of labels, and pixels that must not change."""

import time

import jaxtyping
import numpy as np
import pytest

from ssd_jax.drawing import boxes as draw
from ssd_jax.drawing.fonts import choose_font

GREY = 90
RED, BLUE = draw.PALETTE[:2]


def make_blank_image(height=480, width=640):
    return np.full((height, width, 3), GREY, np.uint8)


def make_boxes(*rows):
    return np.array(rows, np.float32).reshape(-1, 4)


def find_changed_pixels(drawing, original):
    """Return the positions of the pixels that differ, as (y, x) pairs."""
    return np.argwhere((np.asarray(drawing) != original).any(axis=2))


def match_colour(pixels, colour):
    """Return a boolean mask of the pixels that have a colour."""
    return (np.asarray(pixels) == colour).all(axis=-1)


@pytest.fixture
def label_rectangles(monkeypatch):
    """Return a list to which draw_boxes appends the rectangle of each label that it draws."""
    seen = []
    choose = draw._choose_place

    def choose_and_record(*args):
        place = choose(*args)
        seen.extend([place] if place else [])
        return place

    monkeypatch.setattr(draw, "_choose_place", choose_and_record)
    return seen


def count_covering_labels(rectangles, height=480, width=640):
    """Return the number of labels that cover each pixel."""
    covered = np.zeros((height, width), int)
    for x1, y1, x2, y2 in rectangles:
        covered[y1 : y2 + 1, x1 : x2 + 1] += 1
    return covered


def make_crowd(count, side=8):
    """Return boxes of the given side in pixels that are scattered over an image of 640 x 480 px."""
    corner = np.random.default_rng(0).uniform(0, [640 - side, 480 - side], (count, 2))
    return np.concatenate([corner, corner + side], axis=1).astype(np.float32)


def test_draw_boxes_draws_the_edges_and_leaves_the_inside_unchanged():
    """In an image of 640 x 480 px, lines are 2 px wide, and the label lies above the box."""
    drawing = np.asarray(
        draw.draw_boxes(make_blank_image(), make_boxes([50, 100, 249, 299]), ["cat"], colours={"cat": BLUE})
    )
    assert match_colour(drawing[100:102, 50:250], BLUE).all()
    assert match_colour(drawing[298:300, 50:250], BLUE).all()
    assert match_colour(drawing[100:300, 50:52], BLUE).all()
    assert match_colour(drawing[100:300, 248:250], BLUE).all()
    assert (drawing[102:298, 52:248] == GREY).all()
    assert (drawing[300:] == GREY).all()


def test_label_is_drawn_above_the_box_and_is_readable():
    drawing = np.asarray(
        draw.draw_boxes(make_blank_image(), make_boxes([50, 100, 249, 299]), ["cat"], colours={"cat": BLUE})
    )
    label = drawing[84:100, 50:70]
    assert match_colour(label[-1], BLUE).all()
    assert match_colour(label, (255, 255, 255)).any(), "white letters on blue"
    yellow = draw.PALETTE[2]
    drawing = np.asarray(
        draw.draw_boxes(make_blank_image(), make_boxes([50, 100, 249, 299]), ["cat"], colours={"cat": yellow})
    )
    assert match_colour(drawing[84:100, 50:70], (0, 0, 0)).any(), "black letters on yellow"


def test_score_makes_the_label_longer():
    args = make_blank_image(), make_boxes([50, 100, 249, 299]), ["cat"]
    without = find_changed_pixels(draw.draw_boxes(*args), args[0])
    with_score = find_changed_pixels(draw.draw_boxes(*args, np.array([0.876], np.float32)), args[0])
    row = 95  # in the label
    assert (with_score[:, 0] == row).sum() > (without[:, 0] == row).sum() + 15


@pytest.mark.parametrize(
    "box",
    [
        (0, 0, 30, 30),
        (610, 0, 639, 30),
        (0, 450, 30, 479),
        (610, 450, 639, 479),
        (-20, -20, 700, 500),
        (0, 0, 640, 480),
    ],
)
def test_label_is_inside_the_image_for_boxes_at_the_border(box, label_rectangles):
    draw.draw_boxes(make_blank_image(), make_boxes(box), ["a rather long name"], np.array([0.5], np.float32))
    ((x1, y1, x2, y2),) = label_rectangles
    assert 0 <= x1 < x2 <= 639
    assert 0 <= y1 < y2 <= 479
    assert x2 - x1 > 80, "the label is not shortened"


def test_box_beyond_the_border_is_clipped():
    """x2 = 640 is the edge of the image, so the line lies in the last columns."""
    drawing = np.asarray(
        draw.draw_boxes(make_blank_image(), make_boxes([600, 100, 640, 200]), ["a"], colours={"a": RED})
    )
    assert match_colour(drawing[100:201, 638:], RED).all()


@pytest.mark.parametrize(
    "box",
    [
        (-50, 10, -10, 40),
        (640, 10, 700, 40),
        (10, -30, 40, -1),
        (10, 480, 40, 500),
        (np.nan, 0, 5, 5),
        (0, 0, np.inf, 5),
    ],
)
def test_boxes_that_lie_outside_the_image_or_are_not_finite_are_left_out(box):
    assert (
        len(find_changed_pixels(draw.draw_boxes(make_blank_image(), make_boxes(box), ["a"]), make_blank_image())) == 0
    )


def test_boxes_with_swapped_corners_and_single_pixel_boxes_are_drawn():
    swapped = draw.draw_boxes(make_blank_image(), make_boxes([249, 299, 50, 100]), ["a"])
    assert np.array_equal(swapped, draw.draw_boxes(make_blank_image(), make_boxes([50, 100, 249, 299]), ["a"]))
    point = np.asarray(draw.draw_boxes(make_blank_image(), make_boxes([50, 100, 50, 100]), ["a"], colours={"a": RED}))
    assert match_colour(point[100, 50], RED)


def test_draw_boxes_without_boxes_returns_an_equal_image():
    drawing = draw.draw_boxes(make_blank_image(), np.zeros((0, 4), np.float32), [], np.zeros(0, np.float32))
    assert np.array_equal(drawing, make_blank_image())


def test_draw_boxes_does_not_change_its_argument():
    image = make_blank_image()
    draw.draw_boxes(image, make_boxes([50, 100, 249, 299]), ["a"])
    assert (image == GREY).all()


@pytest.mark.parametrize("height, width", [(1, 1), (1, 40), (40, 1), (5, 5), (12, 30), (30, 12), (12, 200)])
def test_boxes_on_tiny_images_are_drawn_without_labels(height, width, label_rectangles):
    image = make_blank_image(height, width)
    drawing = draw.draw_boxes(image, make_boxes([0, 0, width, height]), ["a long name"], np.array([1], np.float32))
    assert drawing.size == (width, height)
    assert match_colour(np.asarray(drawing)[-1, -1], RED).all()
    assert label_rectangles == []


@pytest.mark.parametrize(
    "name",
    ["x" * 3000, "naïve Kätzchen", "кошка", "猫", "قط", "two\nlines", "tab\tbed", "", " ", "🐈", "broken \udcff", "\0"],
)
def test_any_name_can_be_drawn(name, label_rectangles):
    drawing = np.asarray(
        draw.draw_boxes(make_blank_image(), make_boxes([50, 100, 249, 299]), [name], np.array([0.5], np.float32))
    )
    assert match_colour(drawing[100, 50:250], RED).all()
    assert len(find_changed_pixels(drawing[:100], make_blank_image()[:100])) > 0, (
        "there is a label, which may contain only the score"
    )
    assert 0 <= label_rectangles[0][0] < label_rectangles[0][2] <= 639


def test_non_ascii_letters_are_drawn_as_letters():
    """A font without the letters é and ü would draw the same empty square for é and ü."""
    drawings = [
        draw.draw_boxes(make_blank_image(), make_boxes([50, 100, 249, 299]), [name]) for name in ("é", "ü", "ж")
    ]
    assert not np.array_equal(drawings[0], drawings[1])
    assert not np.array_equal(drawings[1], drawings[2])


def test_long_names_are_shortened_and_the_score_is_kept():
    font = choose_font("a", 12)
    text = draw._make_label_text("domestic cat, house cat", " 0.75", font, 80)
    assert text.startswith("dom")
    assert text.endswith("… 0.75")
    assert font.measure(text) <= 80
    assert draw._make_label_text("cat", " 0.75", font, 80) == "cat 0.75"
    assert draw._make_label_text("cat", " 0.75", font, 3) == ""


def test_labels_of_thirty_boxes_hardly_overlap(label_rectangles):
    """The thirty objects are scattered over an image of 640 x 480 px, and some overlap."""
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, [540, 380], (30, 2))
    corners = np.concatenate([corner, corner + 90], axis=1).astype(np.float32)
    draw.draw_boxes(make_blank_image(), corners, ["RBC"] * 30, rng.random(30).astype(np.float32))
    covered = count_covering_labels(label_rectangles)
    assert len(label_rectangles) == 30
    assert (covered > 1).sum() / (covered > 0).sum() < 0.01


@pytest.mark.parametrize("seed", range(5))
def test_choose_place_returns_the_first_of_the_places_that_share_the_fewest_pixels_with_labels(seed):
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.integers(0, 40, (28, 2, 2)), axis=1)
    rectangles = [tuple(corner.ravel().tolist()) for corner in corners]
    places, labels = rectangles[:8], rectangles[8:]
    cover = count_covering_labels(labels, 40, 40).astype(np.uint8)
    shared = [
        sum(
            max(0, min(a[2], b[2]) - max(a[0], b[0]) + 1) * max(0, min(a[3], b[3]) - max(a[1], b[1]) + 1)
            for b in labels
        )
        for a in places
    ]
    assert draw._choose_place(places, cover, True) == places[int(np.argmin(shared))]


@pytest.mark.parametrize("with_scores", [True, False])
def test_labels_of_a_crowd_cover_no_other_label_and_leave_most_of_the_image_free(label_rectangles, with_scores):
    boxes = make_crowd(600)
    scores = np.linspace(0, 1, 600, dtype=np.float32) if with_scores else None
    drawing = draw.draw_boxes(make_blank_image(), boxes, ["RBC"] * 600, scores, colours={"RBC": RED})
    covered = count_covering_labels(label_rectangles)
    assert covered.max() == 1
    assert draw.LABELLED_AREA <= covered.mean() < draw.LABELLED_AREA + 0.01
    quarters = [part for half in np.array_split(covered, 2) for part in np.array_split(half, 2, axis=1)]
    assert all(quarter.mean() > 0.1 for quarter in quarters), "the labels lie in all parts of the image"
    corners = boxes.round().astype(int)[:, :2].T
    visible = covered[corners[1], corners[0]] == 0
    assert match_colour(np.asarray(drawing)[corners[1], corners[0]], RED)[visible].all(), "every box is drawn"


def test_best_scores_of_a_crowd_are_labelled(label_rectangles):
    """The last ten of 600 boxes have the highest scores, and their labels lie at their boxes."""
    boxes = make_crowd(600)
    draw.draw_boxes(make_blank_image(), boxes, ["RBC"] * 600, np.linspace(0, 1, 600, dtype=np.float32))
    for box, (x1, y1, x2, y2) in zip(boxes[::-1][:10], label_rectangles, strict=False):
        assert x1 - 9 <= box[2] and x2 + 9 >= box[0] and y1 - 9 <= box[3] and y2 + 9 >= box[1]


def test_lines_are_thinner_in_a_crowd():
    """In an image of 640 x 480 px, lines are 2 px wide for up to 50 boxes, and 1 px wide for 200."""
    for count, width in ((50, 2), (200, 1)):
        boxes = np.tile(make_boxes([50, 100, 249, 299]), (count, 1))
        drawing = np.asarray(draw.draw_boxes(make_blank_image(), boxes, [""] * count, colours={"": RED}))
        assert match_colour(drawing[200, 50:100], RED).sum() == width


def test_ten_thousand_boxes_are_drawn_in_less_than_two_seconds():
    """They take 0.1 s on an idle machine."""
    boxes, names = make_crowd(10_000), [f"class {i % 30}" for i in range(10_000)]
    start = time.process_time()
    draw.draw_boxes(make_blank_image(), boxes, names, np.linspace(0, 1, 10_000, dtype=np.float32))
    assert time.process_time() - start < 2


def test_boxes_with_high_scores_are_drawn_last():
    """If the boxes of two classes are equal, the class with the higher score is visible, in either order."""
    pair = make_boxes([50, 100, 249, 299], [50, 100, 249, 299])
    colours = {"a": RED, "b": BLUE}
    for scores, on_top in (([0.9, 0.1], RED), ([0.1, 0.9], BLUE)):
        drawing = draw.draw_boxes(make_blank_image(), pair, ["a", "b"], np.array(scores, np.float32), colours=colours)
        assert match_colour(np.asarray(drawing)[299, 50:250], on_top).all()
        assert match_colour(np.asarray(drawing)[99, 50:60], on_top).all(), (
            "the label of the box on top has the best place"
        )


def test_scale_enlarges_the_image_and_its_boxes():
    drawing = draw.draw_boxes(
        make_blank_image(100, 120), make_boxes([10, 50, 59, 79]), ["a"], colours={"a": RED}, scale=3
    )
    assert drawing.size == (360, 300)
    assert match_colour(np.asarray(drawing)[237, 30:178], RED).all()


def test_draw_boxes_rejects_different_lengths_and_names_without_a_colour():
    with pytest.raises(ValueError, match="1 boxes, 2 names"):
        draw.draw_boxes(make_blank_image(), make_boxes([0, 0, 5, 5]), ["a", "b"])
    with pytest.raises((ValueError, jaxtyping.TypeCheckError)):  # the latter where shapes are checked
        draw.draw_boxes(make_blank_image(), make_boxes([0, 0, 5, 5]), ["a"], np.zeros(2, np.float32))
    with pytest.raises(KeyError):
        draw.draw_boxes(make_blank_image(), make_boxes([0, 0, 5, 5]), ["a"], colours={})


def test_class_colours_differ_and_repeat_after_twenty_classes():
    palette = np.array(draw.PALETTE, int)
    distance = np.linalg.norm(palette[:, None] - palette[None], axis=2) + 1000 * np.eye(len(palette))
    assert distance.min() > 50
    colours = draw.class_colours(str(i) for i in range(25))
    assert len(colours) == 25
    assert colours["0"] == colours["20"] == RED


def test_labels_of_identical_boxes_are_left_out_without_measuring_each_text(monkeypatch):
    """The names differ, so that no text is measured twice. Measuring a long text takes a millisecond."""
    measured = []
    measure = draw._measure_text
    monkeypatch.setattr(draw, "_measure_text", lambda text, font: measured.append(text) or measure(text, font))
    names = [f"{i} {'a long name of a class ' * 12}" for i in range(500)]
    draw.draw_boxes(np.zeros((600, 800, 3), np.uint8), np.tile(np.float32([200, 200, 400, 400]), (500, 1)), names)
    assert len({text for text in measured if len(text) > 1}) < 100


@pytest.mark.parametrize("seed", range(6))
def test_estimated_room_changes_no_label(monkeypatch, seed):
    rng = np.random.default_rng(seed)
    count, size = int(rng.integers(60, 300)), rng.integers(40, 400, 2)
    corner, extent = rng.random((count, 2)) * size, rng.random((count, 2)) * size * rng.choice([0.1, 0.5])
    boxes = np.concatenate([corner, corner + extent], 1).astype(np.float32)
    if seed % 2:
        boxes[:] = boxes[0]
    letters = list("AVToy. il猫W")
    names = ["".join(rng.choice(letters, rng.integers(1, 60))) for _ in range(count)]
    image = np.zeros((*size, 3), np.uint8)
    drawn = np.asarray(draw.draw_boxes(image, boxes, names))
    monkeypatch.setattr(draw._Labels, "_has_room", lambda labels, *_: labels._room > 0)
    assert np.array_equal(drawn, np.asarray(draw.draw_boxes(image, boxes, names)))
