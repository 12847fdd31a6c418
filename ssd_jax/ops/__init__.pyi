from .augmentation import augment as augment
from .boxes import cxcywh_to_xyxy as cxcywh_to_xyxy
from .boxes import decode_boxes as decode_boxes
from .boxes import encode_boxes as encode_boxes
from .boxes import pairwise_iou as pairwise_iou
from .boxes import xyxy_to_cxcywh as xyxy_to_cxcywh
from .default_boxes import make_default_boxes as make_default_boxes
from .detection import Detections as Detections
from .detection import detect as detect
from .loss import hard_negative_mask as hard_negative_mask
from .loss import multibox_loss as multibox_loss
from .loss import smooth_l1 as smooth_l1
from .matching import Targets as Targets
from .matching import assign_objects as assign_objects
from .matching import match as match
from .resample import resize as resize
from .suppression import KeptPairs as KeptPairs
from .suppression import multiclass_nms as multiclass_nms
from .suppression import nms as nms

__all__ = [
    "Detections",
    "KeptPairs",
    "Targets",
    "assign_objects",
    "augment",
    "cxcywh_to_xyxy",
    "decode_boxes",
    "detect",
    "encode_boxes",
    "hard_negative_mask",
    "make_default_boxes",
    "match",
    "multibox_loss",
    "multiclass_nms",
    "nms",
    "pairwise_iou",
    "resize",
    "smooth_l1",
    "xyxy_to_cxcywh",
]
