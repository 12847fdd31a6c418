"""Where the parameters of a new run come from: fresh ones, another run's, or a weight file's.

Trunk, extras and location predictors are taken as they are, but for the first layer, which is fitted
to this run's mean and std. The class predictors, ``*_mbox_conf``, have a channel for each class of
each box of a cell; these are carried over by the class's name.
"""

from collections.abc import Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax import Array
from jaxtyping import Float32

from ssd_jax.config import Config, Model, Train
from ssd_jax.data.class_names import describe_class_difference, format_names
from ssd_jax.errors import UserError
from ssd_jax.inference import detector
from ssd_jax.models.ssd import CLASS_PREDICTOR, Params
from ssd_jax.runs import run_folder
from ssd_jax.weights.importing import import_weights

Leaf = Array | np.ndarray

# Of two models: these do not change what the trained parameters mean.
_IMMATERIAL = ("model.class_names", "model.dtype", "model.precision", "model.remat", "model.l2_norm_scale")


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
        return "\n".join(format_names(f"{title:7} {len(names):3}", names or ("-",)) for title, names in rows)


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


def refit_first_conv(params: Params, there: Model, here: Model) -> Params:
    """With conv1_1 changed so that it makes of images normalised as ``here`` what it made of those as ``there``.

    Exact, but for the outermost pixels where the means differ: the zeros around the image are then
    another colour. Not for norm="group", whose convolutions do not go by the size of their weights.
    """
    if (there.mean, there.std) == (here.mean, here.std):
        return params
    (mean, std), (new_mean, new_std) = (np.array([m.mean, m.std], np.float64) for m in (there, here))
    first = params["vgg"]["conv1_1"]
    kernel, bias = (np.asarray(first[name], np.float64) for name in ("kernel", "bias"))
    bias = bias + np.einsum("hwio,i->o", kernel, (new_mean - mean) / std)
    kernel = kernel * (new_std / std)[:, None]
    fitted = first | {"kernel": kernel.astype(np.float32), "bias": bias.astype(np.float32)}
    return params | {"vgg": params["vgg"] | {"conv1_1": fitted}}


class Pretrained(NamedTuple):
    """What train.pretrained names."""

    path: Path
    config: Config
    """Without classes: a trunk alone."""
    imported: Params | None
    """None: in the checkpoints of a run."""

    def params(self) -> tuple[Params, str]:
        """The parameters, and a name for them."""
        if self.imported is not None:
            return self.imported, str(self.path)
        params, step = detector.restore_params(self.path, self.config, "best")
        return params, f"{self.path}, step {step}" if self.config.model.class_names else str(self.path)


def open_pretrained(train: Train) -> Pretrained:
    """Raises UserError where there is neither a run nor a weight file."""
    path = Path(train.pretrained)
    if path.is_file():
        imported = import_weights(path, class_names=None if train.backbone_only else ())
        return Pretrained(path, imported.config, imported.params)
    if not path.exists():
        raise UserError(
            f"train.pretrained: there is no file or folder '{path}'. Name a run or a file of weights with "
            "--train.pretrained PATH; docs/weights.md says which files are read"
        )
    return Pretrained(path, run_folder.read_config(path), None)


def check_pretrained(config: Config) -> None:
    """Raises UserError where train.pretrained names nothing to start from, or another network, or, unless
    train.transfer is set, other classes."""
    train = config.train
    if train.pretrained:
        _check(open_pretrained(train), config)
    elif train.transfer or train.backbone_only:
        raise UserError(
            "train.transfer, train.backbone_only: of what? Name a run or a file with --train.pretrained PATH"
        )


def initial_params(config: Config, fresh: Params) -> Params:
    """The parameters that a run begins with, laid out as ``fresh``, its own: these, or those of what
    train.pretrained names. Prints which, and what became of the classes.

    Raises UserError as `check_pretrained` does, and for a run that has no checkpoint.
    """
    if not config.train.pretrained:
        check_pretrained(config)
        if config.model.norm == "none":
            print("Starting from random weights. The paper starts from a trained VGG16: --train.pretrained FILE.")
        return fresh
    start = open_pretrained(config.train)
    _check(start, config)
    params, name = start.params()
    there, here = start.config.model, config.model
    if here.norm == "none" and (there.mean, there.std) != (here.mean, here.std):
        print(f"  conv1_1 is fitted from mean {there.mean}, std {there.std} to this config's {here.mean}, {here.std}.")
        params = refit_first_conv(params, there, here)
    if loads_backbone_only(start, config):
        print(f"Starting from {name}: {', '.join(params['vgg'])}. The rest is new.")
        params = fresh | {"vgg": fresh["vgg"] | params["vgg"]}
    else:
        _note_differences(start, config)
        print(f"Starting from {name}.")
        if config.train.transfer:
            classes = match_classes(there.class_names, here.class_names, config.train.transfer_names)
            print(f"Classes, by name:\n{classes.table()}")
            params = transfer_params(params, fresh, there.class_names, here.class_names, classes.kept)
    return jax.tree.map(lambda p, f: jax.device_put(p, f.sharding), params, fresh)


def loads_backbone_only(start: Pretrained, config: Config) -> bool:
    return config.train.backbone_only or not start.config.model.class_names


def _check(start: Pretrained, config: Config) -> None:
    there, here = start.config.model, config.model
    whole = not loads_backbone_only(start, config)
    fields = ("norm", "width", *(("extras", "global_pool", "default_boxes.boxes_per_cell") if whole else ()))
    found = [(f"model.{name}", attrgetter(name)(there), attrgetter(name)(here)) for name in fields]
    lines = [f"  {name}: {old} -> {new}" for name, old, new in found if old != new]
    if lines:
        listing = "\n".join(lines)
        raise UserError(
            f"{start.path}: its network is another one (there -> here):\n{listing}\nTake over its model, or start "
            "without --train.pretrained"
        )
    if whole:
        _check_classes(start, config)


def _check_classes(start: Pretrained, config: Config) -> None:
    there, here = start.config.model.class_names, config.model.class_names
    difference = describe_class_difference(there, here)
    if difference and not config.train.transfer:
        raise UserError(
            f"{start.path}: a checkpoint of other classes than the data's:\n{difference}\n"
            "To carry over those in both by their names, and start the others anew, add --train.transfer; for VGG16 "
            "alone, --train.backbone-only. Names that differ but mean the same go into train.transfer_names of the "
            "config"
        )
    match_classes(there, here, config.train.transfer_names)


def _note_differences(start: Pretrained, config: Config) -> None:
    """What changes what the parameters mean, and does not stop a start."""
    lines = [line for line in run_folder.config_differences(start.config, config) if line.startswith("model.")]
    fitted = ("model.mean", "model.std") if config.model.norm == "none" else ()
    lines = [line for line in lines if not line.startswith((*_IMMATERIAL, *fitted))]
    if lines:
        print(f"  note: the model of {start.path} is another one (there -> here):", *lines, sep="\n    ")
