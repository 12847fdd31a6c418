from .average_precision import evaluate_coco as evaluate_coco
from .average_precision import evaluate_voc as evaluate_voc
from .average_precision import voc_average_precision as voc_average_precision

__all__ = [
    "evaluate_coco",
    "evaluate_voc",
    "voc_average_precision",
]
