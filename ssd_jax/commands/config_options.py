"""Options of the commands that take a config file: ``train CONFIG --train.steps 100``."""

import argparse
import ast
import dataclasses
import functools
import inspect
import re
import textwrap
import typing
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
import tyro

from ssd_jax.commands.options import make_registry
from ssd_jax.config import Config, DefaultBoxes, Model, Train
from ssd_jax.config_fields import RENAMED_OPTIONS
from ssd_jax.errors import UserError
from ssd_jax.portability import quote_argument
from ssd_jax.runs.config_file import build_config, load_config, select_length
from ssd_jax.runs.config_names import list_configs

T = TypeVar("T")
_MAX_CHOICES = 40  # characters in the help; --help-all lists longer choices
HELP = ("-h", "--help")
HELP_ALL = "--help-all"

_FILE_ONLY: dict[type, set[str]] = {
    Config: {"name"},
    DefaultBoxes: {"feature_maps", "min_sizes", "max_sizes", "aspect_ratios", "steps"},
    Model: {"extras"},
    Train: {"transfer_names"},
}
"""Fields that can only be set in a config file: nested tuples, tuples with an entry per feature map, and the name."""

_ALIASES = {"strict": "data.strict", **RENAMED_OPTIONS}


def parse_config_options(kind: type[T], command: str, argv: Sequence[str], common: Sequence[str] = ()) -> T:
    """Return the options of a command that takes a config file, parsed from the command line.

    With ``--help`` or ``--help-all`` in ``argv``, print the options with the values of the config file and exit.

    Args:
        kind: Dataclass of the options. Its field ``config`` receives the config with all overrides.
        command: Name of the command, for messages.
        argv: Arguments after the name of the command. The config is the first argument, unless that is an option; see
            `find_config_position`.
        common: Names of the config options that ``--help`` lists, such as ``train.steps``.

    Raises:
        UserError: If the config is missing or invalid, or a value is not allowed.
        SystemExit: If an option is unknown or cannot be parsed, or help was requested.
    """
    words = list(argv)
    position = find_config_position(words)
    if position is None:
        raise UserError(f"{command} CONFIG [options]: name a config first. `ssd-jax configs` lists them")
    file = words.pop(position)
    config = load_config(file)
    folder = _find_positional_word(words)
    if folder is not None:
        raise UserError(
            f"{command}: '{folder}' is not an option. To name the folder of the data, write --data.root "
            f"{quote_argument(folder)}"
        )
    program = f"ssd-jax {command} {file}"
    if any(word in HELP for word in words):
        print(_format_short_help(kind, program, config, common))
        raise SystemExit(0)
    if HELP_ALL in words:
        words = ["--help"]
    words = [_replace_former_name(word) for word in words]
    given = {word.partition("=")[0].removeprefix("--").replace("-", "_") for word in words if word.startswith("--")}
    registry = make_registry()
    registry.struct_rule(functools.partial(_describe_config_type, given))
    return tyro.cli(
        kind,
        default=kind(config),  # type: ignore[call-arg]
        args=words,
        prog=program,
        description=f"The defaults are the values of {file}.",
        registry=registry,
    )


def find_config_position(words: Sequence[str]) -> int | None:
    """Return the index of the argument that names the config, or None if there is none.

    This is the first argument or, if that is an option, the first argument that ends with .py or, if there is none, an
    argument that is the name of a config. A name may also be the value of an option, as in ``--workdir shapes``;
    therefore an argument that does not follow an option is preferred, and then the last one.
    """
    if words and not words[0].startswith("-"):
        return 0
    files = [index for index, word in enumerate(words) if word.endswith(".py")]
    if files:
        return files[0]
    names = [index for index, word in enumerate(words) if word in list_configs()]
    return max(names, key=lambda index: (not words[index - 1].startswith("-"), index), default=None)


def read_option_name(word: str) -> str:
    """Return the present name of the option of a word such as ``--train.no-transfer`` or ``--train.steps=5``."""
    name = _replace_former_name(word).partition("=")[0].removeprefix("--").replace("-", "_")
    section, dot, last = name.rpartition(".")
    return f"{section}{dot}{last.removeprefix('no_')}"


def _find_positional_word(words: Sequence[str]) -> str | None:
    """Return the first argument that is neither an option nor its value, as far as this is clear; else None."""
    for word, before in zip(words, ["--no-", *words], strict=False):
        if not word.startswith("-") and before.startswith("--no-"):
            return word
    return None


def _describe_config_type(given: Collection[str], info: Any) -> Any:
    """Return tyro's description of `Config` or a part of it, without fields that only a file can set.

    For all other types, return None.

    Args:
        given: Names of the options on the command line.
        info: tyro's information about the type.
    """
    kind: Any = info.type
    if getattr(kind, "__module__", None) not in (Config.__module__, Train.__module__):
        return None
    docs, types = read_field_docs(kind), typing.get_type_hints(kind)
    shown = [f for f in dataclasses.fields(kind) if f.name not in _FILE_ONLY.get(kind, ())]
    return tyro.constructors.StructConstructorSpec(
        # The values are checked once, by msgspec on the whole config, whose messages name the option.
        instantiate=functools.partial(_override_values, info.default, given) if kind is Config else dict,
        fields=tuple(
            tyro.constructors.StructFieldSpec(
                f.name, types[f.name], getattr(info.default, f.name), docs.get(f.name, "")
            )
            for f in shown
        ),
    )


def _override_values(config: Config, given: Collection[str], **values: Any) -> Config:
    """Return a copy of ``config`` in which ``values``, a nested dict of options, replace the present values.

    The options in ``given`` were on the command line; all others have the values of the config file.
    """
    return build_config(select_length(_merge_values(msgspec.to_builtins(config), values), given))


def _merge_values(tree: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of the nested dict ``tree`` in which ``values`` replace the present values."""
    merged = {name: _merge_values(tree[name], v) if isinstance(v, dict) else v for name, v in values.items()}
    return tree | merged


def _replace_former_name(argument: str) -> str:
    """Return an argument in which a former name or an alias of an option is replaced by the current name."""
    match = re.fullmatch(r"--((?:\w+\.)?)(no-)?([\w-]+)(=.*)?", argument)
    name = match and _ALIASES.get(match[1] + match[3].replace("-", "_"))
    if not name:
        return argument
    section, _, present = name.rpartition(".")
    return f"--{section}.{match[2] or ''}{present}{match[4] or ''}"  # type: ignore[index]


# ---- help ----


def read_field_docs(kind: type) -> dict[str, str]:
    """Return a dict from the name of each documented field of a dataclass to its doc, as one line."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(body, ast.ClassDef)
    docs = {}
    for node, following in zip(body.body, body.body[1:], strict=False):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and isinstance(following, ast.Expr):
            docs[node.target.id] = " ".join(ast.literal_eval(following.value).replace("``", "").split())
    return docs


def _format_short_help(kind: type, program: str, config: Config, common: Sequence[str]) -> str:
    """Return the text of ``--help``: the options of the command and the most used options of the config."""
    names = config.model.class_names
    parser = argparse.ArgumentParser(
        program,
        usage=f"{program} [options]",
        add_help=False,
        formatter_class=functools.partial(argparse.HelpFormatter, max_help_position=30, width=80),
        description=(
            f"Images of {config.model.image_size} px, {config.model.default_boxes.count} default boxes, "
            + (f"{len(names)} classes." if names else "the classes of the data.")
        ),
        epilog=f"{HELP_ALL} lists every option. The image size and other nested values are set in the config file.",
    )
    docs, types = read_field_docs(kind), typing.get_type_hints(kind)
    for f in dataclasses.fields(kind):
        if f.name in docs:
            _add_option(parser, f.name.replace("_", "-"), types[f.name], docs[f.name], f.default)
    for name in common:
        part: Any = config
        *sections, leaf = name.split(".")
        for section in sections:
            part = getattr(part, section)
        kind = type(part)
        _add_option(parser, name, typing.get_type_hints(kind)[leaf], read_field_docs(kind)[leaf], getattr(part, leaf))
    return parser.format_help().rstrip()


def _add_option(parser: argparse.ArgumentParser, name: str, kind: Any, doc: str, default: Any) -> None:
    """Add an option to the parser, with the first sentence of ``doc`` as its help."""
    sentence = re.split(r"(?<=[^.]\.)\s", doc, maxsplit=1)[0].rstrip(".")
    if kind is bool:
        negative = re.sub(r"([\w-]+)$", r"no-\1", name)
        parser.add_argument(f"--{name}", f"--{negative}", help=f"{sentence} (default: {default})", action="store_true")
        return
    if type(None) in typing.get_args(kind):
        kind = typing.get_args(kind)[0]
    if typing.get_origin(kind) is Literal:
        metavar = "|".join(typing.get_args(kind))
        metavar = metavar if len(metavar) <= _MAX_CHOICES else "NAME"
    else:
        metavar = {int: "INT", float: "FLOAT", str: "TEXT", Path: "PATH"}[kind]
    value = "" if default in (None, "", dataclasses.MISSING) else f" (default: {default})"
    parser.add_argument(f"--{name}", help=f"{sentence}{value}".replace("%", "%%"), metavar=metavar)
