from .model_folder import is_model_folder as is_model_folder
from .model_folder import read_model_folder as read_model_folder
from .model_folder import write_model_folder as write_model_folder
from .opening import OpenedModel as OpenedModel
from .opening import load as load
from .opening import open_model as open_model
from .opening import save_model_folder as save_model_folder

__all__ = [
    "OpenedModel",
    "is_model_folder",
    "load",
    "open_model",
    "read_model_folder",
    "save_model_folder",
    "write_model_folder",
]
