__all__ = ["convert_data_set"]

from .conversion import convert_data_set as convert_data_set
