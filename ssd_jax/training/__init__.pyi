from .optimizer import make_optimizer as make_optimizer
from .optimizer import make_schedule as make_schedule
from .pretrained import open_pretrained as open_pretrained
from .replay import AugmentedImage as AugmentedImage
from .replay import replay_image as replay_image
from .run import train as train
from .train_step import TrainState as TrainState
from .train_step import init_state as init_state
from .train_step import make_train_step as make_train_step

__all__ = [
    "AugmentedImage",
    "TrainState",
    "init_state",
    "make_optimizer",
    "make_schedule",
    "make_train_step",
    "open_pretrained",
    "replay_image",
    "train",
]
