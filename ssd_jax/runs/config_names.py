"""Names of the configs that come with the package, such as ``own_data`` for the file ``configs/own_data.py``.

The files are written in the folder ``configs`` of the repository. A wheel has copies of them in ``ssd_jax/configs``.
"""

import difflib
import logging
import os
from pathlib import Path

from ssd_jax.errors import UserError

logger = logging.getLogger(__name__)

_PACKAGE = Path(__file__).parents[1]
_FOLDER = "configs"


def list_configs() -> dict[str, Path]:
    """Return a dict from the name of each config that comes with the package to its file, sorted by name."""
    installed = _PACKAGE / _FOLDER
    folder = installed if installed.is_dir() else _PACKAGE.parent / _FOLDER
    return {file.stem: file for file in sorted(folder.glob("*.py")) if not file.stem.startswith("_")}


def find_config_file(config: str | Path) -> Path:
    """Return the file of a config, given its name or a path.

    A name without ``.py``, such as ``own_data``, is always a config that comes with the package, whatever files the
    current folder contains. Everything else is a path. If no file has this path, ``own_data.py`` and
    ``configs/own_data.py`` also stand for the config that comes with the package, so that commands for a checkout work
    without one.

    Args:
        config: Name of a config that comes with the package, or path of a Python file.

    Returns:
        An existing path. It may be a folder, or a file that is not a config.

    Raises:
        UserError: If there is no such name or path. The message lists similar names.
    """
    path = os.path.expanduser(config)
    folder, file = os.path.split(path)
    configs = list_configs()
    if not folder and file in configs:
        _warn_about_file_with_same_name(file, configs[file])
        return configs[file]
    if os.path.isfile(path) or os.path.isdir(path):
        return Path(path)
    name = file.removesuffix(".py")
    if folder in ("", _FOLDER) and name in configs:
        return configs[name]
    similar = difflib.get_close_matches(name.replace("-", "_"), configs, n=3)
    advice = f"Did you mean {' or '.join(similar)}? " if similar else ""
    problem = f"{config}: no such config file" if folder or name != file else f"there is no config named {config}"
    raise UserError(f"{problem}. {advice}`ssd-jax configs` lists all names; a file of your own ends with .py")


def _warn_about_file_with_same_name(name: str, used: Path) -> None:
    """Log a warning if the current folder has a config file with the name of the config that is used instead."""
    file = Path(f"{name}.py")
    if file.is_file() and not file.samefile(used):
        logger.warning(
            "%s is the config that comes with ssd-jax, not the file %s in this folder. To use the file, write %s",
            name, file, file,
        )  # fmt: skip
