from .detections import ImageDetections as ImageDetections
from .detector import Detector as Detector
from .results import Detection as Detection
from .results import Detections as Detections

__all__ = [
    "Detection",
    "Detections",
    "Detector",
    "ImageDetections",
]
