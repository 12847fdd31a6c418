"""``ssd-jax aot``, also ``python -m ssd_jax.aot``."""

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import tyro

from ssd_jax import files
from ssd_jax.aot.programs import PROGRAMS, Program, Report, compile_programs
from ssd_jax.aot.report import TITLES, table, text
from ssd_jax.aot.targets import EXAMPLES, parse_target
from ssd_jax.commands.options import HELP, parse_config_options
from ssd_jax.config import Config
from ssd_jax.errors import UserError

AOT_HELP = f"""usage: aot --target TARGET CONFIG [--train.batch_size N ...]
       aot --table FILE...

Compiles the training step and the detection program of CONFIG for devices that need not be here, and
tells what they cost: FLOPs, memory, what the devices exchange, and images per second at most. Minutes
of all cores.

  --target TARGET              {EXAMPLES}
  --train.batch_size N         images of all devices together
  --model.dtype bfloat16       as devices are meant to be used
  --only train|detect          one of the two
  --classes N                  for a config that takes its classes from the data
  --json FILE                  write the report there, too
  aot CONFIG --help            lists every option of the config with its value
  aot --table FILE...          a table in Markdown of such files"""


@dataclass(frozen=True)
class AotOptions:
    config: Annotated[Config, tyro.conf.arg(name="")]
    target: str = ""
    """A TPU slice by its topology, such as v5e:2x4, or GPUs, such as h100x8."""
    only: Literal["train", "detect"] | None = None
    """The training step or the detection program alone."""
    classes: int | None = None
    """How many, without background, where the config names none."""
    json: Path | None = None
    """Write the report there."""


def aot(argv: Sequence[str]) -> None:
    """aot --target v5e:2x4 CONFIG: compile for TPUs or GPUs that are not here; FLOPs, memory, images/s at most."""
    if not argv or argv[0] in HELP:
        print(AOT_HELP)
    elif argv[0] == "--table":
        if not argv[1:]:
            raise UserError("aot --table FILE...: name files that --json wrote")
        print(table([read_report(Path(file)) for file in argv[1:]]))
    else:
        compile_and_tell(parse_config_options(AotOptions, "aot", config_first(argv)))


def config_first(argv: Sequence[str]) -> list[str]:
    """Options may stand before the config, too."""
    file = next((word for word in argv if word.endswith(".py")), None)
    return list(argv) if file is None else [file, *(word for word in argv if word != file)]


def compile_and_tell(options: AotOptions) -> None:
    if not options.target:
        raise UserError(f"aot: name what to compile for with --target: {EXAMPLES}")
    target = parse_target(options.target)
    config = with_classes(options.config, options.classes)
    programs = (options.only,) if options.only else PROGRAMS
    if options.json is not None:
        with files.user_errors_on_write(options.json, "Name another --json."):  # before the minutes
            options.json.parent.mkdir(parents=True, exist_ok=True)

    def progress(program: Program) -> None:
        print(f"Compiling the {TITLES[program]} for {target.name} (minutes)...", file=sys.stderr)

    report = compile_programs(config, target, programs, progress)
    if options.json is not None:
        files.write_text(options.json, msgspec.json.format(msgspec.json.encode(report)).decode() + "\n")
    print(text(report))


def with_classes(config: Config, classes: int | None) -> Config:
    """With so many made-up names. Raises UserError where there are neither names nor a number, or both."""
    names = config.model.class_names
    if names and classes is not None:
        raise UserError(f"--classes {classes}: the config names its {len(names)} classes")
    if classes is None and not names:
        raise UserError("the config names no classes, it takes them from the data: say how many with --classes 20")
    if classes is None:
        return config
    if classes < 1:
        raise UserError(f"--classes {classes}: must be positive")
    made_up = tuple(f"class {number}" for number in range(1, classes + 1))
    return dataclasses.replace(config, model=dataclasses.replace(config.model, class_names=made_up))


def read_report(file: Path) -> Report:
    """Raises UserError where it is none."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=Report)
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}") from None
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise UserError(f"{file}: not written by aot --json: {error}") from None
