from .safetensors_file import write_safetensors as write_safetensors
from .weight_file import WeightFile as WeightFile
from .weight_file import read_weights as read_weights

__all__ = ["WeightFile", "read_weights", "write_safetensors"]
