from .metadata import Metadata as Metadata
from .metadata import Parity as Parity
from .metadata import Source as Source
from .program import Program as Program

__all__ = ["Metadata", "Parity", "Program", "Source"]
