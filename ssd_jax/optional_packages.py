"""Import packages that only a part of the program needs, each of which an extra of this project installs."""

import importlib
from typing import Any

from ssd_jax.errors import UserError


class MissingPackageError(UserError):
    """Raised if a package of an extra cannot be imported."""


def import_package(name: str, extra: str) -> Any:
    """Import a package, or a module of it, and return the module.

    Args:
        name: Name of the package or module.
        extra: Extra of this project that installs it.

    Raises:
        MissingPackageError: If it cannot be imported.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise MissingPackageError(
            f"the package {package} can't be imported ({error}). Install it with: pip install 'ssd-jax[{extra}]'"
        ) from None
