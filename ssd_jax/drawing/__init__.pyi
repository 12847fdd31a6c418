from .boxes import class_colours as class_colours
from .boxes import draw_boxes as draw_boxes

__all__ = ["class_colours", "draw_boxes"]
