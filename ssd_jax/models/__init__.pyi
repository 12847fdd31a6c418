from .parameters import Params as Params
from .ssd import SSD as SSD
from .ssd import Predictions as Predictions
from .vgg import VGG16 as VGG16
from .vgg import L2Norm as L2Norm

__all__ = ["SSD", "VGG16", "L2Norm", "Params", "Predictions"]
