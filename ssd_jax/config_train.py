"""The ``train`` section of a config: the length of a run, its batches, outputs and initial parameters."""

from typing import Annotated

from msgspec import Meta

from ssd_jax.config_fields import Count, Decay, NonNegativeInt, PositiveFloat, PositiveInt, Seed, require, section
from ssd_jax.errors import UserError

LENGTHS = ("steps", "epochs", "minutes")
"""Options that state the length of a run. A user gives at most one of them."""
DEFAULT_STEPS = 120_000


@section
class Train:
    """Settings of the training: its length, its batches, its outputs and its initial parameters."""

    steps: PositiveInt | None = None
    """Number of training steps. None: it follows from epochs or minutes, and is stored in config.json when it is known;
    120,000 if these are None, too."""
    epochs: PositiveFloat | None = None
    """Length of the run in passes over the train split, in place of steps."""
    steps_range: tuple[PositiveInt, PositiveInt] | None = None
    """Smallest and largest number of steps that epochs may result in. None: no limits."""
    minutes: Annotated[float, Meta(gt=0, le=1e6)] | None = None
    """Length of the run in minutes, in place of steps: the whole time of the command, with compilation and
    evaluations; at least 20 steps should fit. The speed of the first steps decides the number of steps. A run that is
    not finished can be resumed with other minutes."""
    batch_size: Count = 32
    """Number of images per step, over all devices and accumulation steps."""
    accumulation_steps: PositiveInt = 1
    """Number of parts of the batch that are processed one after another, to save memory. The loss and its divisor N
    stay those of the whole batch."""
    seed: Seed = 0
    """Seed of the initial parameters, the order of images and the augmentation."""
    log_every: PositiveInt = 50
    """Number of steps between lines of log.jsonl."""
    eval_every: NonNegativeInt | None = 5_000
    """Number of steps between evaluations on data.val_split. 0: no evaluation. None: six evaluations in a run, or fewer
    if they would take more than 15 % of minutes."""
    checkpoint_every: PositiveInt = 1_000
    """Number of steps between checkpoints."""
    ema_decay: Decay = 0.0
    """Decay of an exponential moving average of the parameters. The average is evaluated and loaded in place of the
    parameters. 0: no average."""
    pretrained: str = ""
    """Network to start from, with a new optimizer: run folder, model folder, weight file, name that `ssd-jax models`
    lists, or hf://USER/NAME. The best checkpoint of a run is taken."""
    backbone_only: bool = False
    """Load only the backbone (conv1_1 to fc7) from a pretrained detector."""
    transfer: bool = False
    """Start from a detector with other classes: predictors of classes with the same name are copied."""
    transfer_names: tuple[tuple[str, str], ...] = ()
    """Classes that have another name in the pretrained detector, as pairs (name here, name in that detector)."""

    def __post_init__(self) -> None:
        if self.steps is None and self.epochs is None and self.minutes is None:
            object.__setattr__(self, "steps", DEFAULT_STEPS)
        low, high = self.steps_range or (1, 1)
        require(low <= high, f"train.steps_range is {low} to {high}, expected the smaller number first")
        has_epochs = self.epochs is not None
        require(has_epochs or self.steps_range is None, "train.steps_range limits train.epochs, which is not set")
        require(self.transfer or not self.transfer_names, "train.transfer_names needs train.transfer")
        require(not (self.transfer and self.backbone_only), "train.transfer cannot be used with train.backbone_only")
        require(
            len(dict(self.transfer_names)) == len(self.transfer_names),
            f"train.transfer_names lists a class twice: {self.transfer_names}",
        )

    @property
    def known_steps(self) -> int:
        """Number of training steps.

        Raises:
            UserError: If the number is not known yet, because it follows from ``epochs`` or ``minutes``.
        """
        if self.steps is None:
            raise UserError("train.steps is not known yet: it is chosen after the training has started")
        return self.steps
