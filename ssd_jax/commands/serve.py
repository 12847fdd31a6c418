"""``ssd-jax serve``: detect objects in images that other programs, or a browser, send over HTTP."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Literal

import tyro

from ssd_jax.commands.options import initialize_jax, parse_options
from ssd_jax.errors import UserError, escape_text
from ssd_jax.exported.reading import uses_jax
from ssd_jax.files import make_user_path
from ssd_jax.portability import interrupt_main_thread
from ssd_jax.serving.limits import Batching, Limits
from ssd_jax.serving.packages import check_can_serve

TOKEN_VARIABLE = "SSD_JAX_TOKEN"
"""Environment variable with the token, which other users of the machine cannot see in the list of processes."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServeOptions:
    """Detect objects in images that are sent over HTTP. Show a page in the browser, and the interface at /docs."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder, model folder, weight file, exported file, name of a model (`ssd-jax models` lists them), or
    hf://USER/NAME."""
    host: str = "127.0.0.1"
    """Host name or IP address to listen on. The default accepts only programs on this machine; 0.0.0.0 accepts all."""
    port: int = 8000
    """Port to listen on. 0: any free one."""
    token: str | None = None
    """Secret that every request must contain. Default: the environment variable SSD_JAX_TOKEN, or none."""
    allowed_hosts: tuple[str, ...] = ()
    """Further names by which a server on this machine is reached, as through a reverse proxy."""
    checkpoint: Literal["best", "last"] = "best"
    """Checkpoint to load. best: the one with the highest mAP (area) on the val split. last: the latest one."""
    batching: Annotated[Batching, tyro.conf.OmitArgPrefixes] = field(default_factory=Batching)
    limits: Annotated[Limits, tyro.conf.OmitArgPrefixes] = field(default_factory=Limits)


def run(argv: Sequence[str]) -> int:
    """Run ``ssd-jax serve`` with the arguments ``argv``, and return the exit code."""
    options = parse_options(ServeOptions, "serve", argv)
    options.batching.check()
    options.limits.check()
    check_can_serve()
    if uses_jax(make_user_path(options.run)):  # importing JAX takes half a second
        initialize_jax()
    serve(options)
    return 0


def serve(options: ServeOptions) -> None:
    """Load a detector, and serve it until Ctrl-C.

    Raises:
        UserError: If there is no such detector, or the address cannot be used.
    """
    from ssd_jax.model_zoo.opening import open_detector
    from ssd_jax.serving.app import make_app
    from ssd_jax.serving.protection import is_loopback, protect
    from ssd_jax.serving.server import run_server

    token = options.token or os.environ.get(TOKEN_VARIABLE) or None
    if token is not None and not (token.isascii() and token.isprintable() and " " not in token):
        raise UserError("the token may contain only ASCII letters, digits and punctuation")
    model = open_detector(options.run)
    app, service = make_app(
        model.load_detector(options.checkpoint),
        model.short_name,
        limits=options.limits,
        batching=options.batching,
        protection=partial(protect, host=options.host, allowed_hosts=options.allowed_hosts, token=token),
        stop=interrupt_main_thread,
    )
    if token is None and not is_loopback(options.host):
        logger.warning("every machine that reaches %s can use this server: it has no --token", options.host)
    run_server(app, options.host, options.port, title=f"Serving {escape_text(model.short_name)}", limits=options.limits)
    if service.failure is not None:
        raise service.failure
