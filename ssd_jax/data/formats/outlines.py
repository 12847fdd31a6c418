"""Compute the upright box around an outline: a polygon, a circle, an ellipse or a rotated box.

All coordinates are x and y with the y axis pointing down, in any unit. Angles are in degrees, clockwise on the screen.
"""

import math
from collections.abc import Sequence

Box = tuple[float, float, float, float]
"""Left, top, right and bottom edge."""


def box_around_points(points: Sequence[Sequence[float]]) -> Box | None:
    """Return the box around points (x, y), or None if there are fewer than two, or a point has no two numbers."""
    if len(points) < 2 or any(len(point) < 2 for point in points):
        return None
    xs, ys = [point[0] for point in points], [point[1] for point in points]
    return min(xs), min(ys), max(xs), max(ys)


def box_around_rotated_box(box: Box, degrees: float, pivot: tuple[float, float] | None = None) -> Box:
    """Return the box around a box that is rotated about a point.

    Args:
        box: Box before the rotation.
        degrees: Angle of the rotation.
        pivot: Point about which the box is rotated; its centre by default.
    """
    left, top, right, bottom = box
    if degrees % 360 == 0:
        return box
    x0, y0 = pivot or ((left + right) / 2, (top + bottom) / 2)
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    corners = [(x - x0, y - y0) for x in (left, right) for y in (top, bottom)]
    xs = [x0 + x * cos - y * sin for x, y in corners]
    ys = [y0 + x * sin + y * cos for x, y in corners]
    return min(xs), min(ys), max(xs), max(ys)


def box_around_ellipse(x: float, y: float, radius_x: float, radius_y: float, degrees: float = 0) -> Box:
    """Return the box around an ellipse with a centre, two radii and an angle."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    if degrees % 180 == 0:
        cos, sin = 1.0, 0.0
    half_width, half_height = math.hypot(radius_x * cos, radius_y * sin), math.hypot(radius_x * sin, radius_y * cos)
    return x - half_width, y - half_height, x + half_width, y + half_height
