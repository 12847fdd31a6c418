"""Check that the packages of the extra ``serve`` are installed."""

from ssd_jax.optional_packages import import_package


def check_can_serve() -> None:
    """Raise an error if a package that the HTTP servers need is missing.

    Raises:
        UserError: If one cannot be imported. The message names the extra that installs it.
    """
    for name in ("uvicorn", "starlette", "python_multipart", "prometheus_client"):
        import_package(name, "serve")
