from .class_names import COCO_CLASSES as COCO_CLASSES
from .class_names import VOC_CLASSES as VOC_CLASSES
from .formats.open import open_source as open_source
from .image import read_image as read_image
from .loader import Batch as Batch
from .loader import Batches as Batches
from .loader import eval_batches as eval_batches
from .loader import train_batches as train_batches
from .source import Annotation as Annotation
from .source import FolderSource as FolderSource
from .source import Source as Source
from .source import make_annotation as make_annotation

__all__ = [
    "COCO_CLASSES",
    "VOC_CLASSES",
    "Annotation",
    "Batch",
    "Batches",
    "FolderSource",
    "Source",
    "eval_batches",
    "make_annotation",
    "open_source",
    "read_image",
    "train_batches",
]
