"""Tests of the sdist and the wheel: their contents, and the program as installed from the wheel, without a checkout."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from helpers.cli import TINY, write_voc_folder
from helpers.paths import ROOT

from ssd_jax import __version__

CONFIGS = sorted(path.name for path in (ROOT / "configs").glob("*.py"))


class Distributions(NamedTuple):
    """The source that was built, and the two files that were built from it."""

    source: Path
    sdist: Path
    wheel: Path


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Distributions:
    """Build the sdist from a copy of the checkout, and the wheel from the sdist."""
    folder = tmp_path_factory.mktemp("distributions")
    source, out = folder / "source", folder / "dist"
    for part in ("ssd_jax", "configs"):
        shutil.copytree(ROOT / part, source / part, ignore=shutil.ignore_patterns("__pycache__"))
    for file in filter(Path.is_file, ROOT.iterdir()):
        shutil.copy(file, source)
    run_program([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)], folder)
    return Distributions(source, out / f"ssd_jax-{__version__}.tar.gz", out / f"ssd_jax-{__version__}-py3-none-any.whl")


@pytest.fixture(scope="module")
def site(distributions: Distributions, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel without its dependencies into a folder, which is to be added to PYTHONPATH."""
    folder = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", str(folder)]
    run_program([*pip, str(distributions.wheel)], folder)
    return folder


def run_program(command: Sequence[str], folder: Path, code: int = 0, **environment: str) -> str:
    """Run a program in a folder, without the checkout in PYTHONPATH, assert its exit code, and return its output."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run(
        command, cwd=folder, env=inherited | environment, capture_output=True, encoding="utf-8", check=False
    )
    assert result.returncode == code, f"{result.stdout}\n{result.stderr}"
    return result.stdout


def run_installed(site: Path, folder: Path, *argv: str, code: int = 0) -> str:
    """Run the script ``ssd-jax`` of the installed wheel in a folder, and return its output."""
    script = shutil.which("ssd-jax", path=site / "bin")
    assert script is not None
    return run_program([script, *argv], folder, code, PYTHONPATH=str(site))


# ---- contents ----


def list_package_files() -> list[str]:
    """Return the files of the package in the checkout, relative to the checkout, without compiled modules."""
    files = (path for path in (ROOT / "ssd_jax").rglob("*") if path.is_file() and path.suffix != ".pyc")
    return [path.relative_to(ROOT).as_posix() for path in files]


def test_wheel_contains_every_file_of_the_package_and_the_configs(distributions):
    with zipfile.ZipFile(distributions.wheel) as wheel:
        names = [name for name in wheel.namelist() if ".dist-info/" not in name]
    configs = [f"ssd_jax/configs/{name}" for name in CONFIGS]
    assert sorted(names) == sorted([*list_package_files(), *configs])
    assert {"ssd_jax/py.typed", "ssd_jax/report/page.css", "ssd_jax/data/formats/coco_minival.txt"} <= set(names)


def test_sdist_contains_the_package_the_configs_and_the_scripts(distributions):
    with tarfile.open(distributions.sdist) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {*list_package_files(), *(f"configs/{name}" for name in CONFIGS)} <= names
    assert {"train.py", "evaluate.py", "predict.py", "setup.py", "pyproject.toml", "README.md", "LICENSE"} <= names
    assert not any("__pycache__" in name for name in names)


# ---- installed wheel ----


def test_installed_package_finds_its_configs_without_a_checkout(site, tmp_path):
    program = "import ssd_jax; print(ssd_jax.__file__, ssd_jax.load_config('own_data').name)"
    printed = run_program([sys.executable, "-c", program], tmp_path, PYTHONPATH=str(site))
    assert printed.split() == [str(site / "ssd_jax" / "__init__.py"), "own_data"]
    listed = run_installed(site, tmp_path, "configs")
    assert all(f"{Path(name).stem} " in listed for name in CONFIGS)


def test_installed_check_data_takes_a_name_and_recommends_another(site, tmp_path):
    root = write_voc_folder(tmp_path / "data", {"train": 3, "val": 2})
    # The exit code is 1, because the classes have few objects.
    printed = run_installed(site, tmp_path, "check-data", "own_data", "--data.root", "data", code=1)
    assert f"ssd-jax train own_data_small --data.root {root}" in printed


def test_installed_train_takes_an_edited_copy(site, tmp_path):
    run_installed(site, tmp_path, "configs", "own_data_small", "--copy", "mine.py")
    file = tmp_path / "mine.py"
    file.write_text(file.read_text(encoding="utf-8").replace("epochs=15", "epochs=77"), encoding="utf-8")
    assert "(default: 77" in run_installed(site, tmp_path, "train", "mine.py", "--help")


@pytest.mark.parametrize("script", ["train", "evaluate", "predict"])
@pytest.mark.parametrize("installed", [False, True])
def test_script_of_a_checkout_uses_the_checkout(distributions, site, tmp_path, script, installed):
    checkout = shutil.copytree(distributions.source, tmp_path / "checkout")
    (checkout / "configs" / "own_data.py").rename(checkout / "configs" / "extra.py")
    environment = {"PYTHONPATH": str(site)} if installed else {}
    argv = ["extra", "--help"] if script == "train" else ["--help"]
    printed = run_program([sys.executable, str(checkout / f"{script}.py"), *argv], tmp_path, **environment)
    assert printed.startswith(f"usage: ssd-jax {script}")


@pytest.mark.slow
def test_wheel_with_dependencies_trains_evaluates_and_predicts_in_an_empty_environment(distributions, tmp_path):
    environment, folder = tmp_path / "venv", tmp_path / "empty"
    folder.mkdir()
    run_program([sys.executable, "-m", "venv", str(environment)], tmp_path)
    scripts = environment / ("Scripts" if os.name == "nt" else "bin")
    pip = [str(scripts / "python"), "-m", "pip", "--disable-pip-version-check"]
    probe = subprocess.run([*pip, "download", "--quiet", "--no-deps", "lazy_loader"], cwd=tmp_path, check=False)
    if probe.returncode:
        pytest.skip("pip reaches no package index")
    run_program([*pip, "install", "--quiet", str(distributions.wheel)], folder)
    shutil.copy(TINY, folder / "my_config.py")

    def run(*argv: str) -> str:
        return run_program([str(scripts / "ssd-jax"), *argv], folder)

    run("train", "my_config.py", "--train.steps", "6", "--train.eval-every", "6")
    run("evaluate", "runs/tiny", "--report")
    assert "voc_map" in (folder / "runs" / "tiny" / "metrics.json").read_text(encoding="utf-8")
    assert "<style>" in (folder / "runs" / "tiny" / "report.html").read_text(encoding="utf-8")
    run("predict", "runs/tiny", "runs/tiny/test_truth.jpg", "--score", "0", "--out", "predictions")
    assert json.loads((folder / "predictions" / "predictions.json").read_text(encoding="utf-8"))
