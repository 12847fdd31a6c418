"""``ssd-jax train``."""

import shlex
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from ssd_jax.commands.options import HELP, parse_config_options, prepare, with_pretrained
from ssd_jax.config import Config
from ssd_jax.data.run_splits import describe_overlap, describe_split, open_training_splits, with_data_root
from ssd_jax.runs import run_folder
from ssd_jax.runtime import compilation, distributed
from ssd_jax.runtime.distributed_options import DistributedOptions
from ssd_jax.training import pretrained
from ssd_jax.training.loop import Trainer

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
    train_config(options.config, options.workdir or Path("runs") / options.config.name)


def train_config(config: Config, workdir: Path) -> None:
    """What ``train`` does, of a config made in Python. Raises UserError for all that ``train`` refuses."""
    compilation.release_compiler_memory()
    config, train_source, val_source = open_training_splits(with_pretrained(with_data_root(config, config.data.root)))
    distributed.assert_same(run_folder.config_to_json(config), "the config, with the data it names,")
    if not run_folder.has_checkpoint(workdir):
        pretrained.check_pretrained(config)  # before there is a folder
    loop = Trainer(config, workdir, train_source, val_source)
    distributed.run_on_primary(lambda: start(workdir, config))
    describe_split("train", train_source, config)
    if val_source is not None:
        describe_split("val", val_source)
        describe_overlap(train_source, val_source)
    with run_folder.exclusive_lock(workdir) if distributed.is_primary() else nullcontext():
        last = loop.run()
    run = shlex.quote(str(workdir))
    if last < config.train.steps:
        print(f"Stopped after step {last}, which is saved, as SIGTERM asked. The same command goes on from there.")
        return
    print(f"Done. Next: evaluate.py {run}, predict.py {run} IMAGES")


def start(workdir: Path, config: Config) -> None:
    going_on, changed = run_folder.create_or_resume(workdir, config)
    print(f"{'Going on with' if going_on else 'New run in'} {workdir}: {describe(config)}")
    for change in changed:
        print(f"  changed: {change}")


def describe(config: Config) -> str:
    """Summarise a config in one line."""
    model = config.model
    return (
        f"{model.image_size} px, {model.default_boxes.count} default boxes, {len(model.class_names)} classes "
        f"({', '.join(model.class_names[:8])}{', ...' if len(model.class_names) > 8 else ''}), "
        f"{config.train.steps} steps of {config.train.batch_size} images"
    )
