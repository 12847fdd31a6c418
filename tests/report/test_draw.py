"""Tests of contact sheets and figures."""

import csv
import json
import sys
import warnings

import numpy as np
import pytest
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.figure import Figure
from PIL import Image

from ssd_jax.drawing import boxes
from ssd_jax.drawing.fonts import choose_font
from ssd_jax.report import draw

GREY = 90
RED, BLUE = boxes.PALETTE[:2]


def make_blank_image(height=480, width=640):
    return np.full((height, width, 3), GREY, np.uint8)


def match_colour(pixels, colour):
    """Return a boolean mask of the pixels that have a colour."""
    return (np.asarray(pixels) == colour).all(axis=-1)


# ---- contact sheet ----


@pytest.mark.parametrize("text", ["train_000012", "", "猫/кошка.jpg", "two\nlines", "broken \udcff", "x" * 3000])
def test_caption_lies_below_the_image(text):
    drawing = np.asarray(draw.add_caption(Image.fromarray(make_blank_image(30, 100)), text))
    assert drawing.shape == (48, 100, 3)
    assert (drawing[:30] == GREY).all()
    assert (drawing[30:].max() > 150) == bool(text), "the caption has light letters, unless it is empty"
    assert (drawing[[30, -1]] == 40).all() and (drawing[30:, [0, -1]] == 40).all(), "no letter is cut at the border"


def test_long_captions_are_shortened_at_the_beginning():
    font = choose_font("a", 13)
    text = draw._shorten_at_the_left("JPEGImages/day 2/BloodImage_00012.jpg", font, 120)
    assert text.startswith("…") and text.endswith("00012.jpg") and 90 < font.measure(text) <= 120
    assert draw._shorten_at_the_left("00012", font, 120) == "00012"
    assert draw._shorten_at_the_left("00012", font, 3) == draw._shorten_at_the_left("", font, 3) == ""


def test_grid_arranges_images_in_rows_and_centres_smaller_ones():
    """Cells have 20 x 10 px, with gaps of 4 px. An image of 10 x 10 px is moved to the right by 5 px."""
    images = [Image.new("RGB", size, colour) for size, colour in (((20, 10), RED), ((10, 10), BLUE), ((20, 10), BLUE))]
    sheet = draw.grid(images, columns=2)
    assert sheet.size == (4 + 20 + 4 + 20 + 4, 4 + 10 + 4 + 10 + 4)
    pixels = np.asarray(sheet)
    assert match_colour(pixels[4:14, 4:24], RED).all()
    assert match_colour(pixels[4:14, 33:43], BLUE).all()
    assert match_colour(pixels[18:28, 4:24], BLUE).all()
    assert match_colour(pixels, RED).sum() == 200
    assert match_colour(pixels, BLUE).sum() == 300


def test_grid_is_no_wider_than_its_images():
    assert draw.grid([Image.new("RGB", (20, 10))], columns=5).size == (28, 18)


@pytest.mark.parametrize("count, columns", [(0, 3), (1, 0)])
def test_grid_rejects_zero_images_or_columns(count, columns):
    with pytest.raises(ValueError, match=f"got {count} images and {columns} columns"):
        draw.grid([Image.new("RGB", (5, 5))] * count, columns)


# ---- curves ----

ROWS = [
    {"step": 10, "loss": 9.0, "conf_loss": 6.0, "loc_loss": 3.0, "learning_rate": 1e-3},
    {"step": 20, "loss": 5.0, "conf_loss": 3.0, "loc_loss": 2.0, "learning_rate": 1e-3, "voc_map_11point": 0.4},
    {"step": 20, "voc_map_area": 0.45, "coco_ap": None},
]


def test_draw_curves_draws_each_panel(tmp_path):
    draw.draw_curves(ROWS, tmp_path / "curves.png")
    draw.draw_curves([], tmp_path / "empty.png")
    full, empty = (np.asarray(Image.open(tmp_path / name).convert("RGB")) for name in ("curves.png", "empty.png"))
    assert full.shape == empty.shape == (450, 1600, 3)
    tab_blue = (31, 119, 180)
    thirds = [match_colour(third, tab_blue).any() for third in np.array_split(full, 3, axis=1)]
    assert thirds == [True, True, True]
    assert not match_colour(empty, tab_blue).any()


def test_draw_curves_accepts_numbers_as_text(tmp_path):
    keys = sorted({key for row in ROWS for key in row})
    with open(tmp_path / "results.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, keys)
        writer.writeheader()
        writer.writerows(ROWS)
    with open(tmp_path / "results.csv", encoding="utf-8", newline="") as file:
        draw.draw_curves(list(csv.DictReader(file)), tmp_path / "csv.png")
    draw.draw_curves([json.loads(json.dumps(row)) for row in ROWS], tmp_path / "json.png")
    assert np.array_equal(*(np.asarray(Image.open(tmp_path / name)) for name in ("csv.png", "json.png")))


@pytest.mark.parametrize("loss", [0.0, -1.0, float("nan"), float("inf"), 3.0])
def test_draw_curves_accepts_zero_negative_and_non_finite_losses(tmp_path, loss):
    draw.draw_curves([{"step": step, "loss": loss} for step in range(100)], tmp_path / "curves.png")


@pytest.mark.parametrize("values, scale", [([9.0, 3.0], "log"), ([0.0, -1.0], "linear"), ([], "linear")])
def test_loss_axis_is_logarithmic_if_values_are_positive(values, scale):
    axes = Figure().subplots()
    axes.plot(range(len(values)), values)
    draw._use_log_scale(axes)
    assert axes.get_yscale() == scale


def test_curve_leaves_out_missing_values():
    steps, values = draw._read_curve(ROWS, "voc_map_11point")
    assert (steps.tolist(), values.tolist()) == ([20], [0.4])
    assert draw._read_curve([{"step": "30", "loss": "2.5"}, {"step": "40", "loss": ""}], "loss")[1].tolist() == [2.5]
    assert len(draw._read_curve(ROWS, "coco_ap")[0]) == 0


def test_compute_running_mean_averages_each_value_with_its_neighbours():
    """Each of 160 values is averaged with two neighbours on each side, or with fewer at the ends."""
    values = np.arange(160.0) ** 2
    expected = [values[max(i - 2, 0) : i + 3].mean() for i in range(160)]
    np.testing.assert_allclose(draw._compute_running_mean(values), expected)


# ---- data set ----

SHAPES = np.array([[30, 30], [100, 200]], np.float32)


def draw_data_set_of(names, path):
    """Draw a data set that has one box in each of the classes."""
    boxes = np.array([[0, 0, 50, 70]] * len(names), np.float32)
    counts = {"train": dict.fromkeys(names, 1), "val": dict.fromkeys(names, 2)}
    draw.draw_data_set(counts, boxes, np.zeros(len(names), bool), SHAPES, path)


def test_class_names_in_figures_are_literal(tmp_path, monkeypatch):
    """Between two dollar signs, matplotlib would draw a formula, or raise an error if the formula is invalid."""
    texts = set()
    draw_text = RendererAgg.draw_text

    def record_text(self, gc, x, y, s, prop, angle, ismath=False, mtext=None):
        texts.add((s, bool(ismath)))
        return draw_text(self, gc, x, y, s, prop, angle, ismath, mtext)

    monkeypatch.setattr(RendererAgg, "draw_text", record_text)
    names = ["$5_$10", "$x^2$", "a_b^c", r"\frac{", r"$\frac{$", "{}", "%s", "100 %", r"\$"]
    draw_data_set_of(names, tmp_path / "data.png")
    assert {(name, False) for name in names} <= texts
    assert not any(is_formula for _, is_formula in texts)


@pytest.mark.parametrize(
    "name", ["猫", "🐈", "קטה", "قط", "हिन्दी", "x" * 3000, "two\nlines", "broken \udcff", "\x1b[31m", "\0", "", "_"]
)
def test_data_sets_with_any_class_name_are_drawn_without_warnings(tmp_path, name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_data_set_of([name, "cat"], tmp_path / "data.png")
    with Image.open(tmp_path / "data.png") as figure:
        assert figure.size == (1700, 500)


def test_draw_curves_does_not_import_pyplot(tmp_path):
    loaded = "matplotlib.pyplot" in sys.modules
    draw.draw_curves(ROWS, tmp_path / "curves.png")
    assert ("matplotlib.pyplot" in sys.modules) == loaded
