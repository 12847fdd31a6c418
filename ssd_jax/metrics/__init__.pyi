from .average_precision import evaluate_coco as evaluate_coco
from .average_precision import evaluate_voc as evaluate_voc
from .average_precision import voc_average_precision as voc_average_precision
from .diagnosis import Diagnosis as Diagnosis
from .diagnosis import ErrorType as ErrorType
from .diagnosis import diagnose as diagnose
from .tables import format_metrics as format_metrics

__all__ = [
    "Diagnosis",
    "ErrorType",
    "diagnose",
    "evaluate_coco",
    "evaluate_voc",
    "format_metrics",
    "voc_average_precision",
]
