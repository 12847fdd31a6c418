from .draw import add_caption as add_caption
from .draw import class_colours as class_colours
from .draw import draw_boxes as draw_boxes
from .draw import draw_curves as draw_curves
from .draw import grid as grid
from .page import write_report as write_report

__all__ = ["add_caption", "class_colours", "draw_boxes", "draw_curves", "grid", "write_report"]
