"""Commands to paste after ``train`` has refused to resume a run with other options."""

import itertools
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from ssd_jax.commands.config_options import find_config_position, parse_config_options, read_option_name
from ssd_jax.errors import UserError
from ssd_jax.runs.run_folder import flatten_config, read_config
from ssd_jax.training.length import adopt_length
from ssd_jax.training.summary import format_command


def list_commands(kind: type, argv: Sequence[str], workdir: Path, refused: Collection[str]) -> list[str]:
    """Return lines with the commands that resume a run with its own options, and start a new run with the given ones.

    The first command is left out if the saved values cannot be given as options.

    Args:
        kind: Dataclass of the options of ``train``.
        argv: Arguments after ``train``.
        workdir: Run folder.
        refused: Names of the options whose values are not those of the run.
    """
    words = _find_resuming_words(kind, argv, workdir, refused)
    lines = [] if words is None else [f"  to resume: {format_command('train', *words)}"]
    number = next(k for k in itertools.count(2) if not Path(f"{workdir}_{k}").exists())
    others = remove_options(argv, ["workdir"])
    return [*lines, f"  a new run: {format_command('train', *others, '--workdir', f'{workdir}_{number}')}"]


def remove_options(argv: Sequence[str], names: Collection[str]) -> list[str]:
    """Return the arguments of ``train`` without some options and their values."""
    config, kept, is_removed = find_config_position(argv), [], False
    for position, word in enumerate(argv):
        if word.startswith("--"):
            is_removed = read_option_name(word) in names
        if not is_removed or position == config:
            kept.append(word)
    return kept


def _find_resuming_words(kind: type, argv: Sequence[str], workdir: Path, refused: Collection[str]) -> list[str] | None:
    """Return arguments with which the run can be resumed, or None if the refused options cannot be given."""
    saved = read_config(workdir)
    expected, words = flatten_config(saved), remove_options(argv, refused)
    for _ in range(2):
        try:
            config = adopt_length(parse_config_options(kind, "train", words).config, saved)
        except (UserError, SystemExit):
            return None
        values = flatten_config(config)
        wrong = [name for name in refused if values[name] != expected[name]]
        if not wrong:
            return words
        if saved.train.epochs is not None or saved.train.minutes is not None:
            wrong = [name for name in wrong if name != "train.steps"]  # it follows from them
        words += [word for name in wrong for word in _format_option(name, expected[name])]
    return None


def _format_option(name: str, value: Any) -> list[str]:
    """Return the words of an option, or none if its value is not a text, a number, True or False."""
    if isinstance(value, bool):
        section, _, last = name.rpartition(".")
        return [f"--{name}" if value else f"--{section}.no-{last}"]
    return [f"--{name}", str(value)] if isinstance(value, int | float | str) else []
