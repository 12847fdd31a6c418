"""Types and former names of the options in a config, and a function for rules that involve several of them."""

import functools
import warnings
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, dataclass_transform

from msgspec import Meta

from ssd_jax.errors import UserError

T = TypeVar("T")

# ---- types of numbers ----
#
# The upper bounds are far above useful values. They keep numbers within the range of the types on the devices, and
# memory from being allocated for a number with a typing mistake.

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
Fraction = Annotated[float, Meta(gt=0, lt=1)]
Probability = Annotated[float, Meta(ge=0, le=1)]
Decay = Annotated[float, Meta(ge=0, lt=1)]

# ---- rules of several fields ----


def require(condition: bool, message: str) -> None:
    """Raise a UserError with a message about the config if a condition is false."""
    if not condition:
        raise UserError(f"config: {message}")


# ---- former names ----

RENAMED_OPTIONS = {
    "data.canvas": "data.max_image_size",
    "detect.candidates": "detect.top_k_per",
    "optimizer.adam_rate": "optimizer.adam_lr_multiplier",
    "optimizer.bias_rate": "optimizer.bias_lr_multiplier",
    "train.start_from": "train.pretrained",
    "train.trunk_only": "train.backbone_only",
}
"""Dict from the former name of each renamed option to the present name."""


@dataclass_transform(frozen_default=True)
def section(cls: type[T]) -> type[T]:
    """Make a class a frozen dataclass whose constructor also accepts the former names of renamed options.

    A former name gives a FutureWarning, which points to the line of the config file.
    """
    cls = dataclass(frozen=True)(cls)
    prefix = f"{cls.__name__.lower()}."
    new_names = {
        old.removeprefix(prefix): new.removeprefix(prefix)
        for old, new in RENAMED_OPTIONS.items()
        if old.startswith(prefix)
    }
    constructor: Any = cls.__init__

    def construct(self: T, *args: Any, **options: Any) -> None:
        for old in options.keys() & new_names.keys():
            warnings.warn(f"{cls.__name__}.{old} is now called {new_names[old]}", FutureWarning, stacklevel=2)
            options[new_names[old]] = options.pop(old)
        constructor(self, *args, **options)

    type.__setattr__(cls, "__init__", functools.wraps(constructor)(construct))
    return cls
