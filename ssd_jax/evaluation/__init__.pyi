from .evaluator import compute_metrics as compute_metrics
from .evaluator import predict_split as predict_split
from .run import evaluate as evaluate
from .submission import SubmissionWriter as SubmissionWriter
from .submission import make_submission_writer as make_submission_writer

__all__ = [
    "SubmissionWriter",
    "compute_metrics",
    "evaluate",
    "make_submission_writer",
    "predict_split",
]
