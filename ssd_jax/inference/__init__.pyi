from .detections import ImageDetections as ImageDetections
from .detector import Detection as Detection
from .detector import Detector as Detector
from .detector import load as load

__all__ = [
    "Detection",
    "Detector",
    "ImageDetections",
    "load",
]
