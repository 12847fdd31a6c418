"""Parse the options of a command, initialize JAX, and check output folders before the work starts."""

import types
import typing
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import tyro

from ssd_jax import files
from ssd_jax.errors import UserError
from ssd_jax.runtime.distributed_options import DistributedOptions

T = TypeVar("T")
SINGLE_PROCESS = DistributedOptions()
OUT_ADVICE = "Name another --out."


def parse_options(kind: type[T], command: str, argv: Sequence[str]) -> T:
    """Return the options of a command, parsed into a dataclass. The docs of the fields are the help texts.

    Raises:
        SystemExit: If an option is unknown or cannot be parsed, or help was requested.
    """
    return tyro.cli(kind, args=list(argv), prog=f"ssd-jax {command}", registry=make_registry())


def make_registry() -> tyro.constructors.ConstructorRegistry:
    """Return tyro's rules for the types of options. In a path, a leading ``~`` becomes the home folder.

    Shells replace a ``~`` at the start of an argument, but not in ``--out=~/x``. An option that is not a path, such as
    the id of an image, is taken literally. The message about a word that is no number says only this.
    """
    registry = tyro.constructors.ConstructorRegistry()
    registry.primitive_rule(_describe_path)
    registry.primitive_rule(_describe_number)
    return registry


def _describe_path(info: Any) -> Any:
    if info.type is not Path:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH",
        instance_from_str=lambda words: files.make_user_path(words[0]),
        is_instance=lambda value: isinstance(value, Path),
        str_from_instance=lambda path: [str(path)],
    )


def _describe_number(info: Any) -> Any:
    """Return tyro's description of int, float, both, and each of them or None. For all other types, return None."""
    is_union = typing.get_origin(info.type) in (typing.Union, types.UnionType)
    kinds = set(typing.get_args(info.type)) if is_union else {info.type}
    is_optional = type(None) in kinds
    kinds -= {type(None)}
    if not kinds or not kinds <= {int, float}:
        return None

    def read_number(words: list[str]) -> int | float | None:
        if is_optional and words[0] == "None":
            return None
        for kind in sorted(kinds, key=lambda kind: kind is float):
            with suppress(ValueError):
                return kind(words[0])
        raise ValueError(f"{words[0]!r} is not a {'whole number' if kinds == {int} else 'number'}")

    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="FLOAT" if float in kinds else "INT",
        instance_from_str=read_number,
        is_instance=lambda value: (value is None and is_optional) or type(value) in kinds | {int},
        str_from_instance=lambda number: [str(number)],
    )


def initialize_jax(distributed: DistributedOptions = SINGLE_PROCESS) -> None:
    """Connect the processes of a run, and set up compilation. Call this before any use of a device.

    Compiled programs are cached on disk, and the memory of the compiler is returned to the system.
    """
    from ssd_jax.runtime import compilation
    from ssd_jax.runtime.distributed import initialize

    initialize(distributed)
    compilation.enable_compilation_cache()
    compilation.release_compiler_memory()


def check_out_folder(out: Path, *markers: str) -> None:
    """Raise an error if an output folder may contain files that the command did not write, such as photographs.

    Args:
        out: The output folder. It need not exist.
        markers: Names of files that the command writes. A folder that contains one of them may be used again.

    Raises:
        UserError: If the folder contains files, but none of ``markers``, or if it is a file.
    """
    with files.convert_write_errors(out, OUT_ADVICE):
        has_other_files = out.exists() and any(out.iterdir()) and not any((out / marker).exists() for marker in markers)
    if has_other_files:
        raise UserError(f"--out {out}: the folder contains other files. {OUT_ADVICE}")


def check_new_folder(out: Path) -> None:
    """Raise an error if an output folder exists and is not empty.

    Raises:
        UserError: If the folder is not empty, or it is a file.
    """
    with files.convert_write_errors(out, OUT_ADVICE):
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UserError(f"--out {out} exists already. {OUT_ADVICE}")


def make_out_folder(out: Path) -> None:
    """Create an output folder.

    Raises:
        UserError: If the folder cannot be created.
    """
    with files.convert_write_errors(out, OUT_ADVICE):
        out.mkdir(parents=True, exist_ok=True)
