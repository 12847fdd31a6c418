from .detections import ImageDetections as ImageDetections
from .detector import Detection as Detection
from .detector import Detector as Detector

__all__ = [
    "Detection",
    "Detector",
    "ImageDetections",
]
