"""Test that check-data does not load JAX, which would delay its start."""

import subprocess
import sys

from helpers.cli import TINY, write_voc_folder

PROGRAM = """
import importlib, pkgutil, sys
import ssd_jax.data
for module in pkgutil.walk_packages(ssd_jax.data.__path__, "ssd_jax.data."):
    if module.name not in ("ssd_jax.data.loader", "ssd_jax.data.formats.tfds", "ssd_jax.data.formats.prepare"):
        importlib.import_module(module.name)
from ssd_jax.commands.check_data import run
code = run(sys.argv[1:])
print(code, sorted({name.partition(".")[0] for name in sys.modules} & {"jax", "jaxlib", "flax", "grain", "orbax"}))
"""


def test_data_modules_and_check_data_do_not_import_jax(tmp_path):
    """Import all modules of ssd_jax.data except those that need grain, which imports JAX, or tensorflow-datasets."""
    root = write_voc_folder(tmp_path / "data", {"train": 6, "val": 1})
    argv = [TINY, "--data.root", str(root), "--out", str(tmp_path / "out"), "--fix", str(tmp_path / "fixed")]
    program = [sys.executable, "-c", PROGRAM, *map(str, argv)]
    result = subprocess.run(program, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "0 []", result.stdout
