"""Change of the limits of a detector: non-maximum suppression and the number of detections."""

import dataclasses
from typing import Any

from ssd_jax.config import Detect
from ssd_jax.errors import UserError
from ssd_jax.inference.detector import Detector
from ssd_jax.plurals import format_count


def format_strict_limits(limits: Detect) -> str:
    """Return the limits of a detector that leave out more than the default limits do, or an empty text."""
    texts = []
    if limits.score_threshold > Detect().score_threshold:
        texts.append(f"only scores above {limits.score_threshold:g}")
    if limits.max_detections < Detect().max_detections:
        texts.append(f"at most {format_count(limits.max_detections, 'detections')} per image")
    return " and ".join(texts)


def adjust_detector(
    detector: Detector, name: str, *, nms_iou: float | None = None, max_detections: int | None = None
) -> Detector:
    """Return a detector of the same network with other limits.

    Args:
        detector: The detector.
        name: Name of the detector, for messages.
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
        problems = {
            "nms_iou_threshold": f"--nms-iou {nms_iou}: an exported file has the fixed threshold "
            f"{limits.nms_iou_threshold}. Use the run that it was made from",
            "max_detections": f"--max-detections {max_detections}: the file returns at most {limits.max_detections} "
            f"detections per image. Use the run that it was made from, or export it with --max-detections "
            f"{max_detections}",
        }
        raise UserError(*(f"{name}: {problems[field]}" for field in changes))
    config = dataclasses.replace(detector.config, detect=dataclasses.replace(limits, **changes))
    return Detector.from_params(config, detector.params, detector.step)
