from .open import find_format as find_format
from .open import missing_split_message as missing_split_message
from .open import open_source as open_source
from .open import split_names as split_names
from .shapes import ShapesSource as ShapesSource

__all__ = ["ShapesSource", "find_format", "missing_split_message", "open_source", "split_names"]
