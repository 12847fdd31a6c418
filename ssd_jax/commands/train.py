"""``ssd-jax train``."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from ssd_jax.commands.options import HELP, parse_config_options, prepare
from ssd_jax.config import Config
from ssd_jax.runtime.distributed_options import DistributedOptions
from ssd_jax.training import run

TRAIN_HELP = """usage: train CONFIG [--workdir RUN] [--train.steps N ...]

Trains the detector that CONFIG describes, a file such as configs/shapes.py. The same command again
goes on where the run stopped.

  train CONFIG --help          lists every option of the config with its value
  --workdir RUN                the run's folder; default runs/<name of the config>
  --data.root FOLDER           pictures and boxes to train on"""


@dataclass(frozen=True)
class TrainOptions:
    config: Annotated[Config, tyro.conf.arg(name="")]
    workdir: Path | None = None
    """Folder of the run; default runs/<config name>. If it is there already, the run goes on."""
    hosts: Annotated[DistributedOptions, tyro.conf.arg(name="")] = field(default_factory=DistributedOptions)


def train(argv: Sequence[str]) -> None:
    """train CONFIG [--workdir RUN] [--train.steps N ...]: train, or go on where the run stopped."""
    if argv and argv[0] in HELP:
        print(TRAIN_HELP)
        return
    options = parse_config_options(TrainOptions, "train", argv)
    prepare(options.hosts)
    run.train(options.config, options.workdir)
