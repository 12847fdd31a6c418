"""The check of a data set starts at once because it does not load JAX."""

import subprocess
import sys

from helpers.cli import write_voc_folder

PROGRAM = """
import importlib, pkgutil, sys
import ssd_jax.data
for module in pkgutil.walk_packages(ssd_jax.data.__path__, "ssd_jax.data."):
    if module.name not in ("ssd_jax.data.loader", "ssd_jax.data.formats.tfds", "ssd_jax.data.formats.prepare"):
        importlib.import_module(module.name)
from pathlib import Path
from ssd_jax.config import Config, Data
from ssd_jax.data.check import check_data_set, format_box_coverage, format_counts, format_problems
from ssd_jax.report.data_set import write_data_set_figures
config = Config(data=Data(root=sys.argv[1]))
check = check_data_set(config)
print(format_problems(check.problems), format_counts(check), format_box_coverage(check.coverage, config))
print("loaded:", sorted({name.partition(".")[0] for name in sys.modules} & {"jax", "jaxlib", "flax", "grain", "orbax"}))
"""


def test_data_modules_and_check_load_no_jax(tmp_path):
    """grain, which `loader` needs, imports JAX itself, and TensorFlow Datasets is imported only when it is used."""
    root = write_voc_folder(tmp_path / "data", {"train": 2, "val": 1})
    program = [sys.executable, "-c", PROGRAM, str(root)]
    result = subprocess.run(program, capture_output=True, text=True, check=True)
    assert result.stdout.endswith("loaded: []\n"), result.stdout
