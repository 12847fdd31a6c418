"""The subcommands of ``ssd-jax``, and what becomes of their errors."""

import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import jax
from PIL import Image
from tqdm.auto import tqdm

from ssd_jax.commands.aot import aot
from ssd_jax.commands.check_data import check_data
from ssd_jax.commands.evaluate import evaluate
from ssd_jax.commands.export_weights import export_weights
from ssd_jax.commands.import_weights import import_command
from ssd_jax.commands.options import HELP
from ssd_jax.commands.predict import predict
from ssd_jax.commands.prepare_data import prepare_data
from ssd_jax.commands.show import show
from ssd_jax.commands.train import train
from ssd_jax.commands.verify import verify
from ssd_jax.errors import UserError
from ssd_jax.runtime import distributed, exit_message

COMMANDS: dict[str, Callable[[Sequence[str]], int | None]] = {
    "prepare-data": prepare_data,
    "check-data": check_data,
    "train": train,
    "evaluate": evaluate,
    "predict": predict,
    "show": show,
    "import-weights": import_command,
    "verify": verify,
    "export-weights": export_weights,
    "aot": aot,
}


def main(argv: Sequence[str]) -> int:
    """Runs a subcommand; returns the exit code. A user's mistake is 2, without a traceback."""
    if argv and argv[0] in HELP:
        print(usage())
        return 0
    if not argv or argv[0] not in COMMANDS:
        print(f"error: no command '{argv[0]}'\n" if argv else "", usage(), sep="", file=sys.stderr)
        return 2
    try:
        with warnings_on_screen(), warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # a large photograph is no attack
            warnings.filterwarnings("ignore", r"Glyph \d+ .* missing")  # of a class name, in matplotlib's figures
            code = COMMANDS[argv[0]](argv[1:]) or 0
        exit_message.set_exit_message("")  # not at exit: after an error JAX may end the process in the midst of that
        return code
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        exit_message.set_exit_message("")
        distributed.exit_now(2)
        return 2
    except jax.errors.JaxRuntimeError as error:
        if not distributed.is_multi_process():
            raise
        told = str(error).strip().splitlines()[0]
        print(f"error: the processes of this run lost each other ({told})", file=sys.stderr)  # last words follow
        distributed.exit_now(2)
        return 2


class _Screen(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(f"{record.levelname.lower()}: {record.getMessage()}", file=sys.stderr)


@contextmanager
def warnings_on_screen() -> Iterator[None]:
    """What the package logs stands meanwhile on the screen, begun as errors are, each above a progress bar's line."""
    logger, screen = logging.getLogger("ssd_jax"), _Screen(logging.WARNING)
    logger.addHandler(screen)
    logger.propagate = False
    try:
        yield
    finally:
        logger.propagate = True
        logger.removeHandler(screen)


def usage() -> str:
    lines = [f"  {command.__doc__}" for command in COMMANDS.values()]
    return "\n".join(["usage: ssd-jax COMMAND ...\n", *lines, "\nssd-jax COMMAND --help tells its options."])
