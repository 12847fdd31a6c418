"""``ssd-jax --version``: the versions of the program and its libraries, and the devices, for bug reports."""

import platform
from collections import Counter
from importlib.metadata import PackageNotFoundError, version

import ssd_jax
from ssd_jax.errors import format_error_reason

LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def format_versions() -> str:
    """Return a text with a line for each version, the system, and the devices that JAX finds."""
    rows = {"ssd-jax": ssd_jax.__version__, "Python": platform.python_version()}
    rows |= {name: _find_version(name) for name in LIBRARIES}
    rows |= {"system": platform.platform(), "devices": _describe_devices()}
    width = max(map(len, rows))
    return "\n".join(f"{name:{width}} {value}" for name, value in rows.items())


def _find_version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _describe_devices() -> str:
    """Return the number, kind and platform of the devices, such as ``2 x NVIDIA H100 80GB HBM3 (gpu)``.

    If JAX finds no device, the reason is returned instead of being raised, because it belongs in a bug report.
    """
    try:
        import jax

        counts = Counter((device.device_kind, device.platform) for device in jax.devices())
    except Exception as error:
        return f"none ({format_error_reason(error)})"
    return ", ".join(
        f"{count} x {kind}" if kind == name else f"{count} x {kind} ({name})" for (kind, name), count in counts.items()
    )
