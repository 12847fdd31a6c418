"""Loading of configs by name, from Python files and from ``config.json``, with a check of every value."""

import dataclasses
import difflib
import importlib.util
import json
import math
import re
import typing
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from ssd_jax.config import Config, Train
from ssd_jax.config_fields import RENAMED_OPTIONS
from ssd_jax.config_train import LENGTHS
from ssd_jax.errors import UserError
from ssd_jax.runs.config_names import find_config_file

_SMALLEST, _LARGEST = 1.2e-38, 3.4e38  # of float32
_MAX_SHOWN = 200


def validate(config: Config) -> Config:
    """Return a copy of the config, after checking each value against the type and the bounds of its field.

    Raises:
        UserError: If a value is not allowed. The message names the option, its value and the expected values.
    """
    if not isinstance(config, Config):
        raise UserError(f"expected a Config, got a {type(config).__name__}. Load a file with ssd_jax.load_config(FILE)")
    return build_config(msgspec.to_builtins(config))


def build_config(tree: Any) -> Config:
    """Build a config from nested dicts with the structure of config.json, and check every value.

    Raises:
        UserError: If a value is not allowed.
    """
    _require_usable_numbers(tree)
    try:
        return msgspec.convert(tree, Config)
    except msgspec.ValidationError as error:
        raise UserError(f"config: {_explain_error(str(error), tree)}") from None


def decode_config(data: bytes) -> Config:
    """Decode the bytes of a config.json into a config. Options may have their former names.

    Raises:
        UserError: If the data is not valid JSON, or if a value is not allowed.
    """
    try:
        # Not with msgspec, which refuses paths that are not UTF-8.
        tree = json.loads(data)
    except ValueError as error:
        raise UserError(str(error)) from None
    except RecursionError:
        raise UserError("the JSON is nested too deeply") from None
    for old, new in RENAMED_OPTIONS.items():
        section, old_name = old.split(".")
        part = tree.get(section) if isinstance(tree, dict) else None
        if isinstance(part, dict) and old_name in part:
            part.setdefault(new.split(".")[1], part.pop(old_name))
    return build_config(tree)


def _require_usable_numbers(tree: Any, path: str = "") -> None:
    """Raise a UserError if the programs for the devices cannot compute with a number.

    They use float32. JSON has no numbers for infinity and NaN, so config.json could not be read.
    """
    if isinstance(tree, dict):
        for name, value in tree.items():
            _require_usable_numbers(value, f"{path}.{name}" if path else str(name))
    elif isinstance(tree, list | tuple):
        for index, value in enumerate(tree):
            _require_usable_numbers(value, f"{path}[{index}]")
    elif isinstance(tree, float):
        if not math.isfinite(tree):
            raise UserError(f"config: {path} is {tree}: expected a finite number")
        if tree and not _SMALLEST <= abs(tree) <= _LARGEST:
            raise UserError(f"config: {path} is {tree}: expected 0, or a number from {_SMALLEST} to {_LARGEST}")


def _explain_error(error: str, tree: Any) -> str:
    """Convert an error message of msgspec to one that names the option and its value.

    "Expected `int` >= 1 - at `$.train.steps`" becomes "train.steps is 0: expected int >= 1".
    """
    match = re.fullmatch(r"(.*) - at `\$\.?(.*)`", error, re.DOTALL)
    if match is None:
        return error
    expected, path = match[1].replace("`", "").replace("-0.0", "0.0"), match[2]
    kind: Any = Config
    for name, index in re.findall(r"(\w+)|\[(\d+|\.\.\.)\]", path):
        if name:
            kind = typing.get_type_hints(kind).get(name) if dataclasses.is_dataclass(kind) else None
            tree = tree[name]
        elif index == "...":  # msgspec does not name keys of dicts
            break
        else:
            kind = (*typing.get_args(kind), None)[0]  # the type of the entries of a tuple
            tree = tree[int(index)]
    if typing.get_origin(kind) is Literal:
        expected = f"expected one of {', '.join(map(repr, typing.get_args(kind)))}"
    text = repr(tree)
    if len(text) > _MAX_SHOWN:
        text = f"{text[:_MAX_SHOWN]}..."
    return f"{path or 'the config'} is {text}: {expected[0].lower()}{expected[1:]}"


def load_config(file: str | Path, options: Mapping[str, Any] | None = None) -> Config:
    """Load a config by its name, such as ``own_data``, or from a Python file that defines ``get_config()``.

    Args:
        file: Name of a config that comes with the package (``ssd-jax configs`` lists them), or path of a config file.
        options: Values that replace those of the file: a dict with the names of command-line options as keys, such as
            ``{"data.root": "FOLDER", "train.steps": 500}``.

    Returns:
        The config, with every value checked.

    Raises:
        UserError: If there is no such name or file, if the file raises an exception, if an option does not exist, or
            if a value is not allowed.
    """
    if options is not None and not isinstance(options, Mapping):
        raise UserError(
            f"options must map names to values, such as {{'train.steps': 500}}, got a {type(options).__name__}"
        )
    path = find_config_file(file)
    if path.is_dir():
        raise UserError(f"{file} is a folder. Name a config first, then the data: own_data --data.root {file}")
    spec = importlib.util.spec_from_file_location("user_config", path)
    if spec is None or spec.loader is None:
        raise UserError(f"{file}: not a Python file. A config is a Python file with a function get_config()")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        if not hasattr(module, "get_config"):
            raise UserError("a config file must define a function get_config(), which returns an ssd_jax.Config")
        config = module.get_config()
        if isinstance(config, Config):
            _require_one_length(config.train)
            options = {RENAMED_OPTIONS.get(name, name): value for name, value in (options or {}).items()}
            given = [name for name in options if options[name] is not None]
            return build_config(select_length(_replace_options(msgspec.to_builtins(config), options), given))
    except UserError as error:
        raise UserError(f"{file}: {error}") from None
    except (Exception, SystemExit) as error:
        raise UserError(f"{file}: {type(error).__name__}: {error}{_format_line_suffix(error, path)}") from error
    raise UserError(f"{file}: get_config() must return an ssd_jax.config.Config, not {type(config).__name__}")


def select_length(tree: dict[str, Any], given: Collection[str]) -> dict[str, Any]:
    """Return the values of a config in which a given length of the run replaces the length that the file states.

    With another unit, what the file states in steps is adapted: milestones become fractions of the run and, with
    ``train.minutes``, the interval of evaluations follows from the length.

    Args:
        tree: The values as nested dicts, with those of the given options.
        given: Names of the options that are given, such as ``train.steps``. Only these are not adapted.

    Raises:
        UserError: If several lengths are given.
    """
    lengths = [name for name in LENGTHS if f"train.{name}" in given]
    if not lengths:
        return tree
    if len(lengths) > 1:
        names = " and ".join(f"train.{name}" for name in lengths)
        raise UserError(f"{names} are given, but a run has one length. Give only one of them")
    train, optimizer = dict(tree["train"]), dict(tree["optimizer"])
    steps = train["steps"]
    train |= {name: None for name in LENGTHS if name not in lengths}
    if "train.steps_range" not in given:
        train["steps_range"] = None
    if lengths != ["steps"] and steps is not None and "optimizer.milestones" not in given:
        optimizer["milestones"] = [m / steps if 1 <= m < steps else m for m in optimizer["milestones"]]
    if lengths == ["minutes"] and train["eval_every"] != 0 and "train.eval_every" not in given:
        train["eval_every"] = None
    return tree | {"train": train, "optimizer": optimizer}


def _require_one_length(train: Train) -> None:
    lengths = [f"train.{name}" for name in LENGTHS if getattr(train, name) is not None]
    if len(lengths) > 1:
        raise UserError(f"{' and '.join(lengths)} are set, but a run has one length. Set only one of them")


def _list_option_names(tree: Mapping[str, Any], prefix: str = "") -> list[str]:
    names: list[str] = []
    for name, value in tree.items():
        names += _list_option_names(value, f"{prefix}{name}.") if isinstance(value, dict) else [prefix + name]
    return names


def _replace_options(tree: dict[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    for option, value in options.items():
        part: Any = tree
        *sections, name = option.split(".")
        for section in sections:
            part = part.get(section) if isinstance(part, dict) else None
        if not isinstance(part, dict) or name not in part:
            similar = difflib.get_close_matches(option, _list_option_names(tree), n=3, cutoff=0.5)
            suggestion = f". Similar options: {', '.join(similar)}" if similar else ""
            raise UserError(f"there is no option {option}{suggestion}")
        if isinstance(part[name], dict):
            raise UserError(
                f"{option} is a section. Set its options one by one, such as {option}.{next(iter(part[name]))}"
            )
        part[name] = str(value) if isinstance(value, Path) else value
    return tree


def _format_line_suffix(error: BaseException, file: Path) -> str:
    """Return " (line N)" for the innermost line of a file in a traceback, or an empty string if there is none."""
    trace, line = error.__traceback__, None
    while trace is not None:
        if Path(trace.tb_frame.f_code.co_filename).resolve() == file.resolve():
            line = trace.tb_lineno
        trace = trace.tb_next
    return f" (line {line})" if line else ""
