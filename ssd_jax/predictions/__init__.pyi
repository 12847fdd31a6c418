from .formats import FORMATS as FORMATS
from .prediction import Prediction as Prediction
from .prediction import PredictionWriter as PredictionWriter
from .writers import open_writers as open_writers

__all__ = ["FORMATS", "Prediction", "PredictionWriter", "open_writers"]
