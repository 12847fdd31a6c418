"""``ssd-jax aot``, also ``python -m ssd_jax.aot``: estimate memory and speed on other devices."""

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import tyro

from ssd_jax import files
from ssd_jax.commands.config_options import HELP, parse_config_options
from ssd_jax.config import Config
from ssd_jax.errors import UserError

TARGETS = "v5e:2x4, v5p:2x2x2, v6e:2x4, h100x8 or a100x8"

AOT_HELP = f"""usage: ssd-jax aot --target TARGET CONFIG [--train.batch_size N ...]
       ssd-jax aot --table FILE...

Compiles the training step and the detection program of CONFIG for devices that
need not be present. Reports FLOPs, memory, communication between devices, and
an upper bound on the images per second. This takes minutes on all cores.

  --target TARGET              {TARGETS}
  --train.batch_size N         images per step over all devices
  --model.dtype bfloat16       data type for accelerators
  --only train|detect          compile only one of the two
  --classes N                  number of classes, if the config names none
  --json FILE                  also write the report to a file
  aot CONFIG --help            lists the most used options, with their values
  aot CONFIG --help-all        lists all options
  aot --table FILE...          prints a Markdown table of files that --json wrote"""

COMMON_OPTIONS = (
    "train.batch_size", "train.accumulation_steps", "model.dtype", "model.precision", "model.remat", "devices.fsdp",
    "data.max_image_size",
)  # fmt: skip


@dataclass(frozen=True)
class AotOptions:
    config: Annotated[Config, tyro.conf.arg(name="")]
    target: str = ""
    """TPU slice with its topology, such as v5e:2x4, or type and number of GPUs, such as h100x8."""
    only: Literal["train", "detect"] | None = None
    """Compile only the training step or the detection program."""
    classes: int | None = None
    """Number of classes without background, if the config names none."""
    json: Path | None = None
    """JSON file to which the report is also written."""


def run(argv: Sequence[str]) -> None:
    """Run ``ssd-jax aot`` with the arguments ``argv``."""
    if not argv or argv[0] in HELP:
        print(AOT_HELP)
    elif argv[0] == "--table":
        if not argv[1:]:
            raise UserError("aot --table FILE...: name files that --json wrote")
        from ssd_jax.aot.report import format_table

        print(format_table([read_report(Path(file)) for file in argv[1:]]))
    else:
        compile_and_report(parse_config_options(AotOptions, "aot", argv, COMMON_OPTIONS))


def compile_and_report(options: AotOptions) -> None:
    """Compile the programs of a config, print the report, and write it to the file that ``--json`` names, if any."""
    if not options.target:
        raise UserError(f"aot: name the devices to compile for with --target: {TARGETS}")
    from ssd_jax.aot.programs import PROGRAMS, Program, compile_programs
    from ssd_jax.aot.report import TITLES, format_report
    from ssd_jax.aot.targets import parse_target

    target = parse_target(options.target)
    config = add_class_names(options.config, options.classes)
    programs = (options.only,) if options.only else PROGRAMS
    if options.json is not None:
        with files.convert_write_errors(options.json, "Name another --json."):  # fails early
            options.json.parent.mkdir(parents=True, exist_ok=True)

    def report_progress(program: Program) -> None:
        print(f"Compiling the {TITLES[program]} for {target.name} (takes minutes)...", file=sys.stderr)

    report = compile_programs(config, target, programs, report_progress)
    if options.json is not None:
        files.write_text(options.json, msgspec.json.format(msgspec.json.encode(report)).decode() + "\n")
    print(format_report(report))


def add_class_names(config: Config, classes: int | None) -> Config:
    """Return the config, with generated class names if it has none.

    Args:
        config: Config of the run.
        classes: Number of classes without background if the config names none, otherwise None.

    Raises:
        UserError: If both the config and ``classes`` define the classes, if neither does, or if ``classes`` is below 1.
    """
    names = config.model.class_names
    if names and classes is not None:
        raise UserError(f"--classes {classes}: the config already names {len(names)} classes")
    if classes is None and not names:
        raise UserError("the config names no classes. Give the number of classes, such as --classes 20")
    if classes is None:
        return config
    if classes < 1:
        raise UserError(f"--classes is {classes}: expected at least 1")
    generated = tuple(f"class {number}" for number in range(1, classes + 1))
    return dataclasses.replace(config, model=dataclasses.replace(config.model, class_names=generated))


def read_report(file: Path) -> Any:
    """Return the report in a file that ``aot --json`` wrote.

    Raises:
        UserError: If the file cannot be read, or is not a report.
    """
    from ssd_jax.aot.programs import Report

    try:
        return msgspec.json.decode(file.read_bytes(), type=Report)
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}") from None
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise UserError(f"{file} was not written by aot --json: {error}") from None
