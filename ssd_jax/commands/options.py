"""What the commands make of their options: the config that is meant, with absolute paths."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
import tyro

from ssd_jax import files
from ssd_jax.config import Config
from ssd_jax.errors import UserError
from ssd_jax.runtime import compilation
from ssd_jax.runtime.distributed import initialize
from ssd_jax.runtime.distributed_options import DistributedOptions

ALONE = DistributedOptions()
HELP = ("-h", "--help")
T = TypeVar("T")
OTHER_OUT = "Name another --out."


def prepare(hosts: DistributedOptions = ALONE) -> None:
    """What a command does before it computes anything."""
    initialize(hosts)
    compilation.enable_compilation_cache()
    compilation.release_compiler_memory()


def parse_config_options(kind: type[T], command: str, argv: Sequence[str]) -> T:
    """Options of a command whose first argument is a config; kind is a dataclass with the field ``config``."""
    if not argv or argv[0].startswith("-"):
        raise UserError(f"{command} CONFIG [options]: name a file of configs/ first, such as configs/shapes.py")
    return tyro.cli(
        kind,
        default=kind(load_config(Path(argv[0]))),  # type: ignore[call-arg]
        args=list(argv[1:]),
        prog=f"{command} {argv[0]}",
        description=f"Options of {argv[0]}, with its values as defaults.",
    )


def load_config(file: Path) -> Config:
    """``get_config()`` of a Python file. Raises UserError if there is none, or it fails."""
    if not file.is_file():
        raise UserError(f"{file}: no such config file")
    spec = importlib.util.spec_from_file_location("user_config", file)
    if spec is None or spec.loader is None:
        raise UserError(f"{file}: not a Python file; a config is one with a function get_config()")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        config = module.get_config()
    except UserError as error:
        raise UserError(f"{file}: {error}") from None
    except (Exception, SystemExit) as error:
        raise UserError(f"{file}: {type(error).__name__}: {error}{_line_of(error, file)}") from error
    if not isinstance(config, Config):
        raise UserError(f"{file}: get_config() must return a ssd_jax.config.Config, not {type(config).__name__}")
    try:  # as config.json is read back: dataclasses take values of any type
        return msgspec.convert(msgspec.to_builtins(config), Config)
    except msgspec.ValidationError as error:
        raise UserError(f"{file}: {error}") from None


def _line_of(error: BaseException, file: Path) -> str:
    """ ", line N" of the last frame in that file."""
    trace, line = error.__traceback__, None
    while trace is not None:
        if Path(trace.tb_frame.f_code.co_filename).resolve() == file.resolve():
            line = trace.tb_lineno
        trace = trace.tb_next
    return f" (line {line})" if line else ""


def check_out(out: Path, own: str) -> None:
    """Raises UserError for a file, and for a folder with other things in it, photographs say: pictures of the
    same names would replace them. own: a file that tells that the command wrote there before."""
    with files.user_errors_on_write(out, OTHER_OUT):
        others = out.exists() and any(out.iterdir()) and not (out / own).exists()
    if others:
        raise UserError(f"--out {out}: there are other things in it. {OTHER_OUT}")


def check_new(out: Path) -> None:
    """Raises UserError where out is there already, but for an empty folder."""
    with files.user_errors_on_write(out, OTHER_OUT):
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UserError(f"--out {out}: is there already. {OTHER_OUT}")


def make_out(out: Path) -> None:
    """Raises UserError where the folder can't be made: before all the work."""
    with files.user_errors_on_write(out, OTHER_OUT):
        out.mkdir(parents=True, exist_ok=True)
