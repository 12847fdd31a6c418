from .evaluator import compute_metrics as compute_metrics
from .evaluator import predict_split as predict_split
from .run import evaluate as evaluate
from .submission import SubmissionWriter as SubmissionWriter
from .submission import writer_for as writer_for

__all__ = [
    "SubmissionWriter",
    "compute_metrics",
    "evaluate",
    "predict_split",
    "writer_for",
]
