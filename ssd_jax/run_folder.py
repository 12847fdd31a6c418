"""The folder of a run: its config, its logs. Everything else about a run is read from here.

``config.json`` (resolved, written before the first step), ``checkpoints/``, ``log.jsonl`` (a line
every ``train.log_every`` steps), ``results.csv`` (a row at every evaluation), ``tensorboard/``.
"""

import csv
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import msgspec
from tensorboardX import SummaryWriter

from ssd_jax.config import Config
from ssd_jax.errors import UserError


def config_to_json(config: Config) -> str:
    return msgspec.json.format(msgspec.json.encode(config), indent=2).decode()


def read_config(run: Path) -> Config:
    """Raises UserError if the folder is not a run or its config.json does not fit this version."""
    file = run / "config.json"
    try:
        return msgspec.json.decode(file.read_bytes(), type=Config)
    except (FileNotFoundError, NotADirectoryError):
        hint = "" if run.exists() else " (there is no such folder)"
        raise UserError(f"{run}: not the folder of a run, it has no config.json{hint}") from None
    except msgspec.MsgspecError as error:
        raise UserError(f"{file}: {error}. The file was changed, or written by another version") from None


def differences(old: Config, new: Config) -> list[str]:
    """``path: old -> new`` for every field that differs."""
    left, right = (_flat(dataclasses.asdict(config)) for config in (old, new))
    return [f"{name}: {left.get(name)!r} -> {right.get(name)!r}" for name in left if left[name] != right.get(name)]


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def start(workdir: Path, config: Config) -> bool:
    """Make the folder, or check that it is this run's; True if it was there.

    Raises UserError if it can't be written, holds other things, or belongs to a run with another config.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        file = workdir / "config.json"
        if file.exists():
            changed = differences(read_config(workdir), config)
            if changed:
                raise UserError(
                    f"{workdir} was started with another config (there -> now):\n  "
                    + "\n  ".join(changed)
                    + "\nTo go on, give the same options; to start anew, name another --workdir"
                )
            return True
        if any(workdir.iterdir()):
            raise UserError(f"{workdir} is not empty and not the folder of a run: name another --workdir")
        write_text(file, config_to_json(config))
    except OSError as error:
        raise UserError(f"{workdir}: can't be written ({error.strerror}); name another --workdir") from error
    return False


def write_text(file: Path, text: str) -> None:
    """Whole or not at all: a run that is killed here leaves the old file."""
    temporary = file.with_name(file.name + ".tmp")
    temporary.write_text(text)
    os.replace(temporary, file)


class RunLog:
    """log.jsonl, results.csv and TensorBoard's scalars of a run. Numbers are plain floats.

    On opening, lines after ``step`` are dropped: a run that was killed and goes on writes them again.
    """

    def __init__(self, workdir: Path, step: int) -> None:
        self.lines_file, self.rows_file = workdir / "log.jsonl", workdir / "results.csv"
        lines = [line for line in read_lines(workdir) if line["step"] <= step]
        write_text(self.lines_file, "".join(json.dumps(line) + "\n" for line in lines))
        self._rows = [row for row in read_rows(workdir) if int(row["step"] or 0) <= step]
        self._write_rows()
        self._tensorboard = SummaryWriter(str(workdir / "tensorboard"), purge_step=step + 1)

    def line(self, step: int, values: dict[str, float]) -> None:
        with self.lines_file.open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        self._scalars(step, "train", values)

    def row(self, step: int, values: dict[str, float | None]) -> None:
        self._rows.append({"step": step, **values})
        self._write_rows()
        self._scalars(step, "val", values)

    def close(self) -> None:
        self._tensorboard.close()

    def _scalars(self, step: int, group: str, values: dict[str, Any]) -> None:
        for name, value in values.items():
            if value is not None:
                self._tensorboard.add_scalar(f"{group}/{name}", value, step)
        self._tensorboard.flush()

    def _write_rows(self) -> None:
        if not self._rows:
            return
        temporary = self.rows_file.with_suffix(".tmp")
        with temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(self._rows[0]))
            writer.writeheader()
            writer.writerows(self._rows)
        os.replace(temporary, self.rows_file)


def read_lines(workdir: Path) -> list[dict[str, float]]:
    """Lines of log.jsonl; a last line cut short by a kill is left out."""
    file = workdir / "log.jsonl"
    lines = []
    for text in file.read_text().splitlines() if file.exists() else []:
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines


def read_rows(workdir: Path) -> list[dict[str, float | None]]:
    """Rows of results.csv, as numbers; an empty cell is None."""
    file = workdir / "results.csv"
    if not file.exists():
        return []
    with file.open(newline="") as stream:
        rows = [{k: float(v) if v else None for k, v in row.items()} for row in csv.DictReader(stream)]
    return [row | {"step": int(row["step"] or 0)} for row in rows]
