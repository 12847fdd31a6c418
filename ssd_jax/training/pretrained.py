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

from ssd_jax.config import Config, Model
from ssd_jax.data.class_names import describe_class_difference, format_names
from ssd_jax.errors import UserError
from ssd_jax.inference import detector
from ssd_jax.models.ssd import CLASS_PREDICTOR, Params
from ssd_jax.runs import run_folder
from ssd_jax.weights.importing import import_weights

Leaf = Array | np.ndarray

# Of two models: these do not change what the trained parameters mean.
_IRRELEVANT = ("model.class_names", "model.dtype", "model.precision", "model.remat", "model.l2_norm_scale")


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
    """A detector or backbone that ``train.pretrained`` names, checked against the config of the new run."""

    path: Path
    config: Config
    """Its config; without class names if it is a backbone alone."""
    imported: Params | None
    """Parameters read from a weight file. None: they are in the checkpoints of a run."""

    def load(self) -> tuple[Params, str]:
        """Return the parameters, and a name for them to print."""
        if self.imported is not None:
            return self.imported, str(self.path)
        params, step = detector.restore_params(self.path, self.config, "best")
        return params, f"{self.path}, step {step}" if self.config.model.class_names else str(self.path)


def open_pretrained(config: Config) -> Pretrained | None:
    """Open what ``train.pretrained`` names and check that the run can start from it.

    A weight file is read and parsed here, once. Of a run only the config is read; `Pretrained.load` reads its
    parameters.

    Returns:
        None if ``train.pretrained`` is empty.

    Raises:
        UserError: The path is neither a run nor a weight file; the architecture differs; the classes differ and
            ``train.transfer`` is off; or an option needs ``train.pretrained``, which is empty.
    """
    train = config.train
    if not train.pretrained:
        if train.transfer or train.backbone_only:
            raise UserError(
                "train.transfer and train.backbone_only need pretrained parameters: name a run or a weight file with "
                "--train.pretrained PATH"
            )
        return None
    path = Path(train.pretrained)
    if path.is_file():
        imported = import_weights(path, class_names=None if train.backbone_only else ())
        pretrained = Pretrained(path, imported.config, imported.params)
    elif path.exists():
        pretrained = Pretrained(path, run_folder.read_config(path), None)
    else:
        raise UserError(
            f"train.pretrained: there is no file or folder '{path}'. Name a run or a weight file with "
            "--train.pretrained PATH; docs/weights.md lists the files that can be read"
        )
    _check_architecture(pretrained, config)
    if not _uses_backbone_only(pretrained, config):
        _check_classes(pretrained, config)
    return pretrained


def initial_params(config: Config, pretrained: Pretrained | None, fresh: Params) -> Params:
    """Return the parameters that a run starts from, and print where they come from.

    Args:
        config: Config of the run.
        pretrained: The result of `open_pretrained` for this config.
        fresh: Freshly initialised parameters of the run, on its devices.

    Returns:
        Parameters with the shapes and the shardings of ``fresh``; ``fresh`` itself if ``pretrained`` is None.

    Raises:
        UserError: ``pretrained`` is a run without a readable checkpoint.
    """
    model = config.model
    if pretrained is None:
        if model.norm == "none":
            print("Starting from random weights. The paper starts from a trained VGG16: --train.pretrained FILE.")
        return fresh
    params, name = pretrained.load()
    old = pretrained.config.model
    if model.norm == "none" and (old.mean, old.std) != (model.mean, model.std):
        print(f"  conv1_1 is converted from mean {old.mean}, std {old.std} to this config's {model.mean}, {model.std}.")
        params = refit_first_conv(params, old, model)
    if _uses_backbone_only(pretrained, config):
        print(f"Starting from {name}: {', '.join(params['vgg'])}. All other layers are new.")
        params = fresh | {"vgg": fresh["vgg"] | params["vgg"]}
    else:
        _print_model_differences(pretrained, config)
        print(f"Starting from {name}.")
        if config.train.transfer:
            classes = match_classes(old.class_names, model.class_names, config.train.transfer_names)
            print(f"Classes, by name:\n{classes.table()}")
            params = transfer_params(params, fresh, old.class_names, model.class_names, classes.kept)
    return jax.tree.map(lambda p, f: jax.device_put(p, f.sharding), params, fresh)


def _uses_backbone_only(pretrained: Pretrained, config: Config) -> bool:
    return config.train.backbone_only or not pretrained.config.model.class_names


def _check_architecture(pretrained: Pretrained, config: Config) -> None:
    fields = ["norm", "width"]
    if not _uses_backbone_only(pretrained, config):
        fields += ["extras", "global_pool", "default_boxes.boxes_per_cell"]
    values = [(f, attrgetter(f)(pretrained.config.model), attrgetter(f)(config.model)) for f in fields]
    lines = [f"  model.{field}: {old} -> {new}" for field, old, new in values if old != new]
    if lines:
        listing = "\n".join(lines)
        raise UserError(
            f"{pretrained.path}: its architecture differs (pretrained -> this config):\n{listing}\nUse its model in "
            "the config, or train without --train.pretrained"
        )


def _check_classes(pretrained: Pretrained, config: Config) -> None:
    old, new = pretrained.config.model.class_names, config.model.class_names
    difference = describe_class_difference(old, new)
    if difference and not config.train.transfer:
        raise UserError(
            f"{pretrained.path}: its classes are not those of the data:\n{difference}\n"
            "To keep the classes that both have, by name, and start the others anew, add --train.transfer. To use "
            "VGG16 alone, add --train.backbone-only. Other names for the same class go into train.transfer_names of "
            "the config"
        )
    match_classes(old, new, config.train.transfer_names)


def _print_model_differences(pretrained: Pretrained, config: Config) -> None:
    """Print differences that change what the parameters mean but do not prevent a start."""
    ignored = _IRRELEVANT + (("model.mean", "model.std") if config.model.norm == "none" else ())
    lines = [
        line
        for line in run_folder.config_differences(pretrained.config, config)
        if line.startswith("model.") and not line.startswith(ignored)
    ]
    if lines:
        print(f"  note: the model of {pretrained.path} differs (pretrained -> this config):", *lines, sep="\n    ")
