"""``ssd-jax train``: train a detector, or resume a run."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ssd_jax.commands.config_options import HELP, parse_config_options
from ssd_jax.commands.options import initialize_jax
from ssd_jax.config import Config
from ssd_jax.errors import UserError
from ssd_jax.runs.run_folder import DifferentConfigError
from ssd_jax.runtime.distributed_options import DistributedOptions
from ssd_jax.runtime.progress import hide_progress

TRAIN_HELP = """usage: ssd-jax train CONFIG [--workdir RUN] [--train.minutes M ...]

Trains a detector with the settings of CONFIG: a name that ssd-jax configs lists,
such as own_data, or a Python file. The same command again resumes the run from
its last checkpoint.

  --workdir RUN                run folder; default runs/<name of the config>
  --data.root FOLDER           images and annotations to train on
  train CONFIG --help          lists the most used options, with their values
  train CONFIG --help-all      lists all options"""

COMMON_OPTIONS = (
    "data.root", "data.train_split", "data.val_split", "data.test_split",
    "train.steps", "train.epochs", "train.minutes", "train.batch_size", "optimizer.learning_rate",
    "train.pretrained", "train.seed", "train.eval_every", "train.checkpoint_every",
)  # fmt: skip


@dataclass(frozen=True)
class TrainOptions:
    config: Annotated[Config, tyro.conf.arg(name="")]
    workdir: Path | None = None
    """Run folder, by default runs/<config name>. If it has a checkpoint, training resumes from it."""
    track: Literal["mlflow", "wandb"] | None = None
    """Also send the options and metrics to MLflow or Weights & Biases (extra of the same name)."""
    quiet: bool = False
    """Show no progress: print only results, warnings and errors."""
    distributed: Annotated[DistributedOptions, tyro.conf.arg(name="")] = field(default_factory=DistributedOptions)


def run(argv: Sequence[str]) -> None:
    """Run ``ssd-jax train`` with the arguments ``argv``."""
    if argv and argv[0] in HELP:
        print(TRAIN_HELP)
        return
    # The CPU time is about the time since the start of the process, most of which Python spent on imports. It is
    # limited because this function may be called in a process that has done other work.
    started = time.perf_counter() - min(time.process_time(), 3.0)
    options = parse_config_options(TrainOptions, "train", argv, COMMON_OPTIONS)
    initialize_jax(options.distributed)
    from ssd_jax.training.run import train

    with hide_progress(options.quiet):
        try:
            train(options.config, options.workdir, track=options.track, started=started)
        except DifferentConfigError as error:
            from ssd_jax.commands.resume_advice import list_commands

            workdir = options.workdir or Path("runs") / options.config.name
            raise UserError(*error.args, *list_commands(TrainOptions, argv, workdir, error.options)) from None
