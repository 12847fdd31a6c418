from .auditing.run import audit as audit
from .config import Config as Config
from .errors import UserError as UserError
from .evaluation.run import evaluate as evaluate
from .inference.detector import Detector as Detector
from .inference.results import Detection as Detection
from .inference.results import Detections as Detections
from .model_zoo.opening import load as load
from .runs.config_file import load_config as load_config
from .training.run import train as train

__all__ = [
    "Config",
    "Detection",
    "Detections",
    "Detector",
    "UserError",
    "audit",
    "evaluate",
    "load",
    "load_config",
    "train",
]
__version__: str
