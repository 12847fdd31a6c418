"""``ssd-jax watch``: show runs in a browser, also while they train."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ssd_jax.commands.options import parse_options
from ssd_jax.errors import UserError


@dataclass(frozen=True)
class WatchOptions:
    """Show runs beside each other in a browser: their state, curves that move while a training goes on, pictures of the
    last evaluation, the options in which they differ, and their report pages. The run folders are only read."""

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_OR_FOLDER")] = Path("runs")
    """Run folder, or a folder with run folders, also in folders below it."""
    port: int = 6007
    """Port of the page. 0: any free one."""
    host: str = "127.0.0.1"
    """Address to listen on. The default can be reached from this machine only; everybody who can reach another one can
    see the runs."""


def run(argv: Sequence[str]) -> None:
    """Run ``ssd-jax watch`` with the arguments ``argv``."""
    options = parse_options(WatchOptions, "watch", argv)
    if not options.folder.is_dir():
        what = "is a file" if options.folder.exists() else "does not exist"
        raise UserError(f"{options.folder} {what}. Name a run folder, or the folder that contains your run folders")
    from ssd_jax.serving.packages import check_can_serve

    check_can_serve()
    from ssd_jax.serving.protection import protect
    from ssd_jax.serving.server import run_server
    from ssd_jax.watching.app import make_watch_app
    from ssd_jax.watching.watcher import Watcher

    app = make_watch_app(Watcher(options.folder))
    run_server(protect(app, options.host), options.host, options.port, title=f"Watching {options.folder}")
