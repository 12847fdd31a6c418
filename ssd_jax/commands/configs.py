"""``ssd-jax configs``: list the configs that come with the package, print one, or copy one to a file to edit."""

import ast
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from ssd_jax import files
from ssd_jax.commands.options import parse_options
from ssd_jax.config import Model
from ssd_jax.errors import UserError
from ssd_jax.runs.config_file import load_config
from ssd_jax.runs.config_names import find_config_file, list_configs

NOTES = """\
px: side of the network's input. x 0.25: the network has a quarter of the
channels. yours: your own images and boxes. source: where the settings are from;
tables and sections are those of the paper, arXiv 1512.02325.

ssd-jax train NAME --data.root FOLDER     trains with a config
ssd-jax configs NAME                      prints its file
ssd-jax configs NAME --copy my_config.py  writes a copy to edit"""

_PAPER_SIDES = (300, 500, 512)


@dataclass(frozen=True)
class ConfigsOptions:
    """List the configs that come with ssd-jax. With NAME, print the file of a config or, with --copy, copy it."""

    name: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")] = None
    """Name of a config. Without it, the configs are listed."""
    copy: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """New file, such as my_config.py, for a copy of the config that you can edit."""


def run(argv: Sequence[str]) -> None:
    """Run ``ssd-jax configs`` with the arguments ``argv``."""
    options = parse_options(ConfigsOptions, "configs", argv)
    if options.name is None:
        if options.copy is not None:
            raise UserError(f"--copy {options.copy}: name the config to copy, as in configs own_data --copy FILE")
        print(f"{format_configs(list_configs())}\n\n{NOTES}")
    elif options.copy is None:
        print(read_config_text(find_config_file(options.name)), end="")
    else:
        copy_config(find_config_file(options.name), options.copy)
        print(f"Written: {options.copy}. Edit it, then: ssd-jax train {options.copy} --data.root FOLDER")


def format_configs(configs: dict[str, Path]) -> str:
    """Return a table of configs with network, input size, data and source of the settings.

    Args:
        configs: Dict from the name of each config to its file.
    """
    import tabulate

    rows = []
    for name, file in configs.items():
        model, about = load_config(file).model, read_about(file)
        rows.append([name, format_network(model), model.image_size, about["data"], about["source"]])
    return tabulate.tabulate(rows, ["config", "network", "px", "data", "source"], disable_numparse=True)


def format_network(model: Model) -> str:
    """Return a short name of a network, such as ``SSD300`` or, for a quarter of the channels, ``SSD300 x 0.25``."""
    name = f"SSD{model.image_size}" if model.image_size in _PAPER_SIDES else "SSD"
    return name if model.width == 1 else f"{name} x {model.width:g}"


def read_about(file: Path) -> dict[str, Any]:
    """Return the dict ``ABOUT`` of a config file, with texts on its ``data`` and the ``source`` of its settings."""
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ABOUT":
            return ast.literal_eval(node.value)
    raise ValueError(f"{file} defines no ABOUT")


def read_config_text(file: Path) -> str:
    """Return the text of a config file.

    Raises:
        UserError: If the file cannot be read.
    """
    with files.convert_read_errors(file):
        return file.read_text(encoding="utf-8", errors="backslashreplace")


def copy_config(file: Path, copy: Path) -> None:
    """Copy a config file to a new file, whose own name replaces the name of the config.

    Args:
        file: The config file.
        copy: The new file.

    Raises:
        UserError: If the new file exists, does not end with .py or cannot be written.
    """
    if copy.suffix != ".py":
        raise UserError(f"--copy {copy}: name a new file that ends with .py, such as my_config.py")
    text = rename_config(read_config_text(file), file.stem, copy)
    with files.convert_write_errors(copy, "Name another --copy FILE."):
        copy.parent.mkdir(parents=True, exist_ok=True)
        try:
            with copy.open("x", encoding="utf-8", newline="\n") as new:
                new.write(text)
        except FileExistsError:
            raise UserError(f"--copy {copy} exists already. Name another --copy FILE, or remove it") from None


def rename_config(text: str, name: str, copy: Path) -> str:
    """Return the text of a config file with the name of its copy, which is also the default name of the run folder.

    Commands in the docstring are changed as well, if the name of the copy needs no quotes in them.
    """
    text = text.replace(f'name="{name}"', f"name={json.dumps(copy.stem)}")
    if re.fullmatch(r"[\w.-]+", copy.name, re.ASCII):
        text = re.sub(rf"(?<=ssd-jax train ){name}(?=\s)", copy.name, text)
        text = re.sub(rf"(?<=runs/){name}\b", copy.stem, text)
    return text
