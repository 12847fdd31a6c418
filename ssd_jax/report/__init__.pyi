from .draw import class_colours as class_colours
from .draw import draw_boxes as draw_boxes
from .draw import draw_curves as draw_curves
from .draw import grid as grid
from .draw import with_caption as with_caption
from .page import write_report as write_report

__all__ = ["class_colours", "draw_boxes", "draw_curves", "grid", "with_caption", "write_report"]
