"""Types of the numbers in a config, with the values that are allowed.

The upper bounds are far above useful values. They keep numbers within the range of the types on the devices, and memory
from being allocated for a number with a typing mistake.
"""

from typing import Annotated

from msgspec import Meta

PositiveInt = Annotated[int, Meta(gt=0, le=2**31 - 1)]
NonNegativeInt = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Count = Annotated[int, Meta(gt=0, le=100_000)]
Seed = Annotated[int, Meta(ge=0, le=2**63 - 1)]
KernelSize = Annotated[int, Meta(gt=0, le=100)]
NetworkPixels = Annotated[int, Meta(gt=0, le=8192)]
PixelSize = Annotated[float, Meta(gt=0, le=100_000)]
AspectRatio = Annotated[float, Meta(ge=0.001, le=1000)]
Divisor = Annotated[float, Meta(ge=1e-6, le=1e6)]
Factor = Annotated[float, Meta(ge=0, le=1000)]
PositiveFloat = Annotated[float, Meta(gt=0)]
NonNegativeFloat = Annotated[float, Meta(ge=0)]
Probability = Annotated[float, Meta(ge=0, le=1)]
Decay = Annotated[float, Meta(ge=0, lt=1)]
