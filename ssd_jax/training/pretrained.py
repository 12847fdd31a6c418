"""Initial parameters of a run: freshly initialised, from another run, or from a weight file.

Backbone, extras and location predictors are taken unchanged, except that the first layer is converted to the mean and
std of the new run. The class predictors, ``*_mbox_conf``, have a channel for each default box and class; these
channels are transferred by class name.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from jaxtyping import Float32

from ssd_jax.config import Config, Model
from ssd_jax.data.class_names import describe_class_difference, format_names
from ssd_jax.errors import UserError, escape_text
from ssd_jax.model_zoo.opening import OpenedModel, open_model
from ssd_jax.models.parameters import CLASS_PREDICTOR, Params
from ssd_jax.runs import run_folder

Leaf = Array | np.ndarray

_COMPATIBLE_FIELDS = ("model.class_names", "model.dtype", "model.precision", "model.remat", "model.l2_norm_scale")
"""Options whose differences from the pretrained run are not printed, because its parameters remain valid."""


_FIELD_TITLES = {
    "norm": "normalization, model.norm",
    "width": "width, model.width",
    "extras": "layers on top of the backbone, model.extras",
    "global_pool": "global pooling, model.global_pool",
    "default_boxes.boxes_per_cell": "default boxes per cell of each feature map",
}
"""Options of the model that determine the shapes of its layers, in words."""


class ClassMapping(NamedTuple):
    """Correspondence between the classes of a new and an old network. Background is always kept and not listed."""

    kept: dict[str, str]
    """Classes of both networks: a dict from the name in the new network to the name in the old network."""
    new: tuple[str, ...]
    """Names of the classes that only the new network has."""
    dropped: tuple[str, ...]
    """Names of the classes that only the old network has."""

    def format_table(self) -> str:
        """Return a text with the numbers and names of the kept, the new and the dropped classes, one group per line."""
        kept = [name if name == old else f"{name} (there: {old})" for name, old in self.kept.items()]
        rows = (("kept", kept), ("new", self.new), ("dropped", self.dropped))
        return "\n".join(format_names(f"{title:7} {len(names):3}", names or ("-",)) for title, names in rows)


def match_classes(old: Sequence[str], new: Sequence[str], synonyms: Sequence[tuple[str, str]] = ()) -> ClassMapping:
    """Match the classes of a new network to those of an old one by name.

    Args:
        old: Class names of the old network.
        new: Class names of the new network.
        synonyms: Pairs (new name, old name) of classes that correspond. They take precedence over equal names. Two new
            classes may correspond to the same old class.

    Raises:
        UserError: If a synonym names a class that does not exist.
    """
    for name, old_name in synonyms:
        if name not in new:
            raise UserError(f"train.transfer_names: '{name}' is not a class of the data, which has {', '.join(new)}")
        if old_name not in old:
            raise UserError(
                f"train.transfer_names: '{old_name}' is not a class of the pretrained detector: {', '.join(old)}"
            )
    origin = {name: name for name in old} | dict(synonyms)
    kept = {name: origin[name] for name in new if name in origin}
    return ClassMapping(
        kept,
        tuple(name for name in new if name not in kept),
        tuple(name for name in old if name not in kept.values()),
    )


def transfer_params(
    params: Params, fresh: Params, old: Sequence[str], new: Sequence[str], kept: Mapping[str, str]
) -> Params:
    """Transfer the parameters of a network to a network with other classes.

    Args:
        params: Parameters of the old network.
        fresh: Freshly initialised parameters of the new network, which differs from the old one only in its classes.
        old: Class names of the old network.
        new: Class names of the new network.
        kept: Dict from new names to old names, as in `ClassMapping.kept`.

    Returns:
        The parameters of the new network. In the class predictors, the channels of background and of the kept classes
        come from ``params``, and those of the other classes from ``fresh``. All other layers come from ``params``.
    """
    labels = [0, *(new.index(name) + 1 for name in kept)]
    old_labels = [0, *(old.index(name) + 1 for name in kept.values())]

    def transfer(trained: Float32[Leaf, "... n"], initial: Float32[Leaf, "... m"]) -> Float32[np.ndarray, "... m"]:
        boxes = initial.shape[-1] // (len(new) + 1)  # channel = box * classes + class
        channels = np.array(initial).reshape(*initial.shape[:-1], boxes, -1)
        channels[..., labels] = np.asarray(trained).reshape(*trained.shape[:-1], boxes, -1)[..., old_labels]
        return channels.reshape(initial.shape)

    heads = [name for name in params if name.endswith(CLASS_PREDICTOR)]
    return params | {name: jax.tree.map(transfer, params[name], fresh[name]) for name in heads}


def refit_first_conv(params: Params, old: Model, new: Model) -> Params:
    """Adapt the first layer, conv1_1, to another mean and std of the images, without changing the output of the layer.

    If the means differ, the output changes at the border of the image, because zero padding then corresponds to another
    colour. The conversion is not valid for ``norm="group"``, whose convolutions normalise their weights.

    Args:
        params: Parameters of a network.
        old: Model with the mean and std that the parameters were trained with.
        new: Model with the mean and std to convert to.
    """
    if (old.mean, old.std) == (new.mean, new.std):
        return params
    (mean, std), (new_mean, new_std) = (np.array([m.mean, m.std], np.float64) for m in (old, new))
    first = params["vgg"]["conv1_1"]
    kernel, bias = (np.asarray(first[name], np.float64) for name in ("kernel", "bias"))
    bias = bias + np.einsum("hwio,i->o", kernel, (new_mean - mean) / std)
    kernel = kernel * (new_std / std)[:, None]
    converted = first | {"kernel": kernel.astype(np.float32), "bias": bias.astype(np.float32)}
    return params | {"vgg": params["vgg"] | {"conv1_1": converted}}


def open_pretrained(config: Config) -> OpenedModel | None:
    """Open the run or weight file that ``train.pretrained`` names, and check that training can start from it.

    A weight file is read here, once. Otherwise, only the config is read here; `OpenedModel.load_params` reads the
    parameters.

    Returns:
        The pretrained detector or backbone, or None if ``train.pretrained`` is empty.

    Raises:
        UserError: If there is no such run, model folder or weight file, if the architecture or the classes differ
            without ``train.transfer``, or if ``train.pretrained`` is empty and an option is set that needs it.
    """
    train = config.train
    if not train.pretrained:
        if train.transfer or train.backbone_only:
            raise UserError(
                "train.transfer and train.backbone_only need pretrained parameters: name a run or a weight file with "
                "--train.pretrained PATH"
            )
        return None
    pretrained = open_model(train.pretrained, class_names=None if train.backbone_only else ())
    _check_architecture(pretrained, config)
    if not _uses_backbone_only(pretrained, config):
        _check_classes(pretrained, config)
    return pretrained


def load_initial_params(config: Config, pretrained: OpenedModel | None, fresh: Params) -> Params:
    """Return the parameters that a run starts from, and print where they come from.

    Args:
        config: Config of the run.
        pretrained: Result of `open_pretrained` for this config.
        fresh: Freshly initialised parameters of the run, on the devices of the run.

    Returns:
        Parameters with the shapes and the shardings of ``fresh``; ``fresh`` itself if ``pretrained`` is None.

    Raises:
        UserError: If the parameters of ``pretrained`` cannot be read.
    """
    model = config.model
    if pretrained is None:
        if model.norm == "none":
            print("Starting from random weights. The paper starts from a trained VGG16: --train.pretrained FILE.")
        return fresh
    params, step = pretrained.load_params()
    old = pretrained.config.model
    name = f"{pretrained.name}, step {step}" if step else pretrained.name
    if model.norm == "none" and (old.mean, old.std) != (model.mean, model.std):
        print(f"  conv1_1 is converted from mean {old.mean}, std {old.std} to mean {model.mean}, std {model.std}.")
        params = refit_first_conv(params, old, model)
    if _uses_backbone_only(pretrained, config):
        print(f"Starting from {name}: {', '.join(params['vgg'])}. All other layers are new.")
        params = fresh | {"vgg": fresh["vgg"] | params["vgg"]}
    else:
        _print_model_differences(pretrained, config)
        print(f"Starting from {name}.")
        if config.train.transfer:
            classes = match_classes(old.class_names, model.class_names, config.train.transfer_names)
            print(f"Classes, by name:\n{classes.format_table()}")
            params = transfer_params(params, fresh, old.class_names, model.class_names, classes.kept)
    return jax.tree.map(lambda p, f: jax.device_put(p, f.sharding), params, fresh)


def _uses_backbone_only(pretrained: OpenedModel, config: Config) -> bool:
    return config.train.backbone_only or not pretrained.config.model.class_names


def _check_architecture(pretrained: OpenedModel, config: Config) -> None:
    fields = ["norm", "width"]
    if not _uses_backbone_only(pretrained, config):
        fields += ["extras", "global_pool", "default_boxes.boxes_per_cell"]
    values = {f: (attrgetter(f)(pretrained.config.model), attrgetter(f)(config.model)) for f in fields}
    differing = {field: values for field, values in values.items() if values[0] != values[1]}
    if differing:
        has_same_backbone = not differing.keys() & {"norm", "width"}
        raise UserError(
            f"{pretrained.name}: its network has other layers than that of this config (there -> here):",
            *(f"  {_FIELD_TITLES[field]}: {_describe_layers(field, *pair)}" for field, pair in differing.items()),
            f"Train with the config of that network, {pretrained.config.name}, or without --train.pretrained"
            + ("; with --train.backbone-only, only the backbone is used, which is the same" * has_same_backbone),
        )


def _describe_layers(field: str, old: Any, new: Any) -> str:
    """Return the difference between two values of an option of the model, such as "4, 6 -> 4, 4"."""
    if field == "extras" and len(old) == len(new):
        pairs = [tuple(map(dataclasses.asdict, pair)) for pair in zip(old, new, strict=True)]
        return "; ".join(
            f"block {k}: {name} {a[name]} -> {b[name]}"
            for k, (a, b) in enumerate(pairs, 1)
            for name in a
            if a[name] != b[name]
        )
    if field == "extras":
        old, new = (tuple(f"{extra.channels} channels" for extra in extras) or ("none",) for extras in (old, new))
    old, new = (", ".join(map(str, value)) if isinstance(value, tuple) else str(value) for value in (old, new))
    return f"{old} -> {new}"


def _check_classes(pretrained: OpenedModel, config: Config) -> None:
    old, new = pretrained.config.model.class_names, config.model.class_names
    difference = describe_class_difference(old, new)
    if difference and not config.train.transfer:
        raise UserError(
            f"{pretrained.name}: the classes of this detector are not those of the data:",
            *difference.splitlines(),
            "To keep the classes that have the same name in both, and start the others from random weights, add "
            "--train.transfer. To use only the VGG16 backbone, add --train.backbone-only. If a class has two names, "
            "list both in train.transfer_names of the config",
        )
    match_classes(old, new, config.train.transfer_names)


def _print_model_differences(pretrained: OpenedModel, config: Config) -> None:
    """Print the options of the model that differ and affect the results, but do not prevent training."""
    ignored = _COMPATIBLE_FIELDS + (("model.mean", "model.std") if config.model.norm == "none" else ())
    lines = [
        line
        for line in run_folder.list_config_differences(pretrained.config, config)
        if line.startswith("model.") and not line.startswith(ignored)
    ]
    if lines:
        print(
            f"  note: the model of {pretrained.name} differs (pretrained -> this config):",
            *map(escape_text, lines),
            sep="\n    ",
        )
