from .folds import assign_folds as assign_folds
from .folds import detect_in_folds as detect_in_folds
from .proposals import make_proposals as make_proposals
from .run import audit as audit

__all__ = ["assign_folds", "audit", "detect_in_folds", "make_proposals"]
