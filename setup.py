"""Package the files of ``configs/`` as ``ssd_jax/configs``. Everything else is in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["ssd_jax", "ssd_jax.*"]), "ssd_jax.configs"],
    package_dir={"ssd_jax.configs": "configs"},
)
