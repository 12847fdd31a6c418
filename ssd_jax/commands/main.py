"""The command line of ``ssd-jax``: find the subcommand, run it, and print its errors.

A subcommand is a module of this package with a function ``run(argv)``, which returns the exit code, or None for 0.
It is imported only when it is run, and imports what needs JAX inside its functions, so that help is printed at once.
"""

import difflib
import importlib
import sys
import warnings
from collections.abc import Sequence
from typing import NamedTuple

from ssd_jax.commands.output import escape_output, print_warnings_to_stderr
from ssd_jax.errors import UserError, format_error_reason
from ssd_jax.runtime.exit_message import set_exit_message


class Command(NamedTuple):
    """A subcommand: the name of its module, and the texts for the list of commands."""

    module: str
    arguments: str
    summary: str


COMMANDS = {
    "demo": Command("demo", "[--out FOLDER] [--no-train]", "detect cells, and train on generated images"),
    "prepare-data": Command("prepare_data", "tfds:NAME --archives FOLDER", "prepare a public data set (TensorFlow)"),
    "configs": Command("configs", "[NAME] [--copy FILE]", "list the configs, or copy one to edit it"),
    "convert": Command("convert", "FOLDER --to FORMAT --out FOLDER", "write a data set as VOC, COCO, YOLO or tfds"),
    "check-data": Command("check_data", "CONFIG [--data.root FOLDER]", "find mistakes in a data set"),
    "train": Command("train", "CONFIG [--workdir RUN] [...]", "train a detector, or resume a run"),
    "watch": Command("watch", "RUN_OR_FOLDER", "show runs in a browser, also while they train"),
    "evaluate": Command("evaluate", "RUN [--report]", "compute mAP and COCO metrics of a run"),
    "audit": Command("audit", "RUN [--folds 5]", "find mistakes in the annotations with a detector"),
    "predict": Command("predict", "RUN IMAGES...", "detect objects in images"),
    "serve": Command("serve", "RUN [--port 8000]", "detect objects for other programs and a browser, over HTTP"),
    "models": Command("models", "[NAME]", "list trained networks that can be had by name"),
    "show": Command("show", "RUN --image ID --epoch E", "draw an image as it was augmented in training"),
    "import-weights": Command("import_weights", "FILE --out RUN", "convert published weights to a run folder"),
    "verify": Command("verify", "FILE", "compare imported weights with torch, layer by layer"),
    "export-weights": Command(
        "export_weights", "RUN --out FILE", "write weights for torchvision or ssd.pytorch, or a model folder"
    ),
    "export": Command("export", "RUN --format FORMAT", "write one file, from pixels to boxes, for other programs"),
    "benchmark": Command("benchmark", "RUN_OR_FILE...", "compare speed, memory and mAP of runs and exported files"),
    "push": Command("push", "RUN USER/NAME", "upload a detector to the Hugging Face Hub"),
    "aot": Command("aot", "--target TARGET CONFIG", "estimate memory and speed on other devices"),
}


VERSION_USAGE = "ssd-jax --version prints the versions and devices, for bug reports."


def format_usage() -> str:
    """Return the usage message, which lists the commands."""
    lines = [f"  {f'{name} {command.arguments}':44}  {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        ["usage: ssd-jax COMMAND ...", "", *lines, "", "ssd-jax COMMAND --help lists its options.", VERSION_USAGE]
    )


def main(argv: Sequence[str]) -> int:
    """Run a subcommand, and return its exit code.

    Args:
        argv: Arguments of the command line after ``ssd-jax``.

    Returns:
        The exit code. It is 2 after a mistake of the user, which is printed without a traceback.
    """
    with escape_output() as output:
        try:
            code = _run_command(argv)
        except SystemExit as exit_request:  # after the help of a command, or a wrong option
            if output.failure is None:
                raise
            code = exit_request.code if isinstance(exit_request.code, int) else 2
        if output.failure is not None:
            reason = format_error_reason(output.failure)
            print(f"error: not all of the output could be printed: {reason}. Free some space.", file=sys.stderr)
            return code or 2
        return code


def _run_command(argv: Sequence[str]) -> int:
    name = argv[0] if argv else ""
    if name in ("-h", "--help"):
        print(format_usage())
        return 0
    if name == "--version":
        from ssd_jax.commands.version import format_versions

        print(format_versions())
        return 0
    if name not in COMMANDS:
        similar = difflib.get_close_matches(name.lower().replace("_", "-"), COMMANDS, n=1)
        advice = f". Did you mean {similar[0]}?" if similar else ""
        print(f"error: no command '{name}'{advice}\n\n{format_usage()}" if name else format_usage(), file=sys.stderr)
        return 2
    module = importlib.import_module(f"ssd_jax.commands.{COMMANDS[name].module}")
    try:
        with print_warnings_to_stderr(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"Image size .* exceeds limit")  # Pillow: images may be large
            # JAX. Commands warn once if the cache folder can't be written.
            warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")
            warnings.filterwarnings("ignore", r"Glyph \d+ .* missing")  # matplotlib: a character of a class name
            code = module.run(argv[1:]) or 0
        # The message is cleared here, not at exit: after an error, JAX may end the process earlier.
        set_exit_message("")
        return code
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        set_exit_message("")
        _exit_if_multi_process(2)
        return 2
    except Exception as error:
        if not _is_lost_connection(error):
            raise
        reason = str(error).strip().splitlines()[0]
        print(f"error: lost the connection to the other processes of the run ({reason})", file=sys.stderr)
        _exit_if_multi_process(2)
        return 2


def _exit_if_multi_process(code: int) -> None:
    """Exit at once if the run has several processes: the usual shutdown would wait for the other processes."""
    distributed = sys.modules.get("ssd_jax.runtime.distributed")  # not imported if there is one process
    if distributed is not None:
        distributed.exit_now(code)


def _is_lost_connection(error: Exception) -> bool:
    """Return whether the error comes from JAX's runtime in a run of several processes, as after a lost connection."""
    distributed = sys.modules.get("ssd_jax.runtime.distributed")
    if distributed is None or not distributed.is_multi_process():
        return False
    import jax

    return isinstance(error, jax.errors.JaxRuntimeError)
