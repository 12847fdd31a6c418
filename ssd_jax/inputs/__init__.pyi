from .finding import Input as Input
from .finding import find_inputs as find_inputs
from .reading import Picture as Picture
from .reading import Unreadable as Unreadable

__all__ = ["Input", "Picture", "Unreadable", "find_inputs"]
