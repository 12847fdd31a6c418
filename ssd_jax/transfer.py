"""Where the parameters of a new run come from: fresh ones, or those of another run's best checkpoint.

Trunk, extras and location predictors are taken as they are. The class predictors, ``*_mbox_conf``,
have a channel for each class of each box of a cell; these are carried over by the class's name.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax import Array
from jaxtyping import Float32

from ssd_jax import detector, run_folder
from ssd_jax.class_names import class_difference, named
from ssd_jax.config import Config
from ssd_jax.errors import UserError
from ssd_jax.evaluation import Params
from ssd_jax.ssd import CLASS_PREDICTOR

Leaf = Array | np.ndarray

# Of two models: these neither change what the trained parameters mean, nor whether they fit.
_IMMATERIAL = ("model.class_names", "model.dtype", "model.l2_norm_scale")


class Classes(NamedTuple):
    """What becomes of each class; background is always kept."""

    kept: dict[str, str]
    """Name in the new network to name in the old one."""
    new: tuple[str, ...]
    dropped: tuple[str, ...]
    """Names of the old network."""

    def table(self) -> str:
        """A line each of kept, new and dropped classes, with their number."""
        kept = [name if name == old else f"{name} (there: {old})" for name, old in self.kept.items()]
        rows = (("kept", kept), ("new", self.new), ("dropped", self.dropped))
        return "\n".join(named(f"{title:7} {len(names):3}", names or ("-",)) for title, names in rows)


def match_classes(old: Sequence[str], new: Sequence[str], synonyms: Sequence[tuple[str, str]] = ()) -> Classes:
    """Which class of the old list each of the new one is: the one that ``synonyms`` says, else that of its name.

    synonyms: (new name, old name). Two new classes may come from one old class.

    Raises UserError for a synonym that names no class.
    """
    for name, old_name in synonyms:
        if name not in new:
            raise UserError(f"train.transfer_names: '{name}' is no class of the data, which are {', '.join(new)}")
        if old_name not in old:
            raise UserError(f"train.transfer_names: '{old_name}' is no class of the checkpoint: {', '.join(old)}")
    origin = {name: name for name in old} | dict(synonyms)
    kept = {name: origin[name] for name in new if name in origin}
    return Classes(
        kept,
        tuple(name for name in new if name not in kept),
        tuple(name for name in old if name not in kept.values()),
    )


def transfer_params(
    params: Params, fresh: Params, old: Sequence[str], new: Sequence[str], kept: Mapping[str, str]
) -> Params:
    """The parameters of a network for the classes ``old``, as those of the same network for the classes ``new``.

    params, fresh: of the old and the new network, which differ in nothing but their classes.
    kept: new name to old name. Channels of background and of these come from ``params``, those of
        other classes from ``fresh``; everything else from ``params``.
    """
    labels = [0, *(new.index(name) + 1 for name in kept)]
    old_labels = [0, *(old.index(name) + 1 for name in kept.values())]

    def carry(trained: Float32[Leaf, "... n"], start: Float32[Leaf, "... m"]) -> Float32[np.ndarray, "... m"]:
        boxes = start.shape[-1] // (len(new) + 1)  # channel = box * classes + class
        channels = np.array(start).reshape(*start.shape[:-1], boxes, -1)
        channels[..., labels] = np.asarray(trained).reshape(*trained.shape[:-1], boxes, -1)[..., old_labels]
        return channels.reshape(start.shape)

    heads = [name for name in params if name.endswith(CLASS_PREDICTOR)]
    return params | {name: jax.tree.map(carry, params[name], fresh[name]) for name in heads}


def check_start(config: Config) -> None:
    """Raises UserError where train.start_from names no run, or one of other default boxes in a cell, or, unless
    train.transfer is set, of other classes."""
    train = config.train
    if train.start_from:
        there = run_folder.read_config(Path(train.start_from))
        _check_boxes_per_cell(there, config)
        _check_classes(there, config)
        match_classes(there.model.class_names, config.model.class_names, train.transfer_names)
    elif train.transfer:
        raise UserError("train.transfer: from which run? Name its folder with --train.start-from RUN")


def starting_params(config: Config, fresh: Params) -> Params:
    """The parameters that a run begins with, laid out as ``fresh``, its own: these, or where
    train.start_from names a run, those of its best checkpoint. Prints which, and what became of the classes.

    Raises UserError as `check_start` does, and for a run that has no checkpoint, or another network.
    """
    check_start(config)
    train, names = config.train, config.model.class_names
    if not train.start_from:
        return fresh
    run = Path(train.start_from)
    there = run_folder.read_config(run)
    classes = match_classes(there.model.class_names, names, train.transfer_names)
    _note_differences(there, config)
    model = dataclasses.replace(config.model, class_names=there.model.class_names)
    params, step = detector.restore_params(run, dataclasses.replace(config, model=model), "best")
    print(f"Starting from {run}, step {step}.")
    if train.transfer:
        print(f"Classes, by name:\n{classes.table()}")
        params = transfer_params(params, fresh, there.model.class_names, names, classes.kept)
    return jax.tree.map(lambda p, f: jax.device_put(p, f.sharding), params, fresh)


def _check_boxes_per_cell(there: Config, here: Config) -> None:
    found, wanted = (config.model.default_boxes.boxes_per_cell for config in (there, here))
    if found != wanted:
        raise UserError(
            f"{here.train.start_from}: its network has {found} default boxes in a cell of its maps, this one {wanted}. "
            "Take over model.default_boxes and model.extras from its config.json, or start without --train.start-from"
        )


def _check_classes(there: Config, here: Config) -> None:
    difference = class_difference(there.model.class_names, here.model.class_names)
    if difference and not here.train.transfer:
        raise UserError(
            f"{here.train.start_from}: a checkpoint of other classes than the data's:\n{difference}\n"
            "To carry over those in both by their names, and start the others anew, add --train.transfer. Names that "
            "differ but mean the same go into train.transfer_names of the config"
        )


def _note_differences(there: Config, here: Config) -> None:
    """Printed before the parameters are read: if they don't fit, here is why."""
    lines = [line for line in run_folder.differences(there, here) if line.startswith("model.")]
    lines = [line for line in lines if not line.startswith(_IMMATERIAL)]
    if lines:
        print(f"  note: the model of {here.train.start_from} is another one (there -> here):", *lines, sep="\n    ")
