"""Tests of the paths of curves in SVG drawings."""

import re

import numpy as np
import pytest

from ssd_jax.metrics import diagnosis
from ssd_jax.report import plots


def test_make_curve_plot_returns_paths_through_the_points():
    """Precision is 1, 1/2, 2/3 at recall 1/2, 1/2, 1. The area has the height 2/3 from recall 1/2 on."""
    curve = diagnosis.Curve(np.array([1, 1 / 2, 2 / 3]), np.array([1 / 2, 1 / 2, 1]), shown=2)
    plot = plots.make_curve_plot(curve)
    left, middle, right = 22, 22 + 170 / 2, 22 + 170
    top, half, third, bottom = 6, 6 + 116 / 2, 6 + 116 / 3, 6 + 116

    def parse_numbers(path: str | None) -> list[float]:
        return [float(number) for number in re.findall(r"[\d.]+", path or "")]

    line = [middle, top, middle, half, right, third]
    np.testing.assert_allclose(parse_numbers(plot.line)[: len(line)], line, atol=0.06)
    np.testing.assert_allclose(parse_numbers(plot.line)[-2:], [right, third], atol=0.06)
    ground = [left, bottom, left, top, middle, top, middle, third, right, third]
    np.testing.assert_allclose(parse_numbers(plot.area)[: len(ground)], ground, atol=0.06)
    assert plot.point == pytest.approx((middle, half))


def test_format_svg_points_leaves_out_points_within_a_third_of_a_unit():
    points = np.column_stack([np.linspace(0, 100, 50_000), np.sin(np.linspace(0, 6, 50_000)) * 50])
    drawn = np.array(plots.format_svg_points(points).split(), float).reshape(-1, 2)
    assert len(drawn) < 700
    assert drawn[-1] == pytest.approx(points[-1], abs=0.06)
    assert np.abs(np.diff(drawn, axis=0)).max() < 0.6


def test_make_line_plot_scales_steps_and_values_to_the_drawing():
    """The highest value, 3.95, is rounded up to 4. The last step, 200, is at the right."""
    plot = plots.make_line_plot("loss", np.array([[0, 3.95], [100, 2], [200, 1]]), None, 50)
    assert (plot.top, plot.last_step, plot.last) == (4.0, 200, 1)
    numbers = [float(number) for number in re.findall(r"[\d.]+", plot.line)]
    expected = [22, 122 - 116 * 3.95 / 4, 22 + 85, 122 - 58, 192, 122 - 29]
    np.testing.assert_allclose(numbers[:6], expected, atol=0.06)
    assert plot.mark == 22 + 170 / 4


@pytest.mark.parametrize("value", [0.0, 1e-12, 123456.0])
def test_make_line_plot_draws_any_values(value):
    plot = plots.make_line_plot("loss", np.array([[1, value], [2, 0]]), None, 5)
    assert plot.top >= value and "nan" not in plot.line and plot.mark is None
