"""Change of the limits of a detector: non-maximum suppression and the number of detections."""

import dataclasses
from typing import Any

from ssd_jax.errors import UserError
from ssd_jax.inference.detector import Detector


def adjust_detector(detector: Detector, *, nms_iou: float | None = None, max_detections: int | None = None) -> Detector:
    """Return a detector of the same network with other limits.

    Args:
        detector: The detector.
        nms_iou: IoU above which the worse of two boxes of a class is suppressed. None: that of the detector.
        max_detections: Number of detections per image that must be possible. None: that of the detector.

    Raises:
        UserError: If the detector is an exported file, whose limits are fixed, and they would have to change.
    """
    limits = detector.config.detect
    changes: dict[str, Any] = {}
    if nms_iou is not None and nms_iou != limits.nms_iou_threshold:
        changes["nms_iou_threshold"] = nms_iou
    if max_detections is not None and max_detections > limits.max_detections:
        changes["max_detections"] = max_detections
    if not changes:
        return detector
    if detector.params is None:
        names = {"nms_iou_threshold": "NMS", "max_detections": f"at most {limits.max_detections} detections"}
        fixed = " and ".join(names[name] for name in changes)
        raise UserError(
            f"{detector.config.name}: an exported file has fixed limits ({fixed}). Use the run, or export it again"
        )
    config = dataclasses.replace(detector.config, detect=dataclasses.replace(limits, **changes))
    return Detector.from_params(config, detector.params, detector.step)
