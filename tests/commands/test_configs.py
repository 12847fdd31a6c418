"""Tests of the command that lists and copies the configs that come with the package."""

import ast
import dataclasses
import os
from pathlib import Path

import pytest
from helpers.cli import run_command
from helpers.paths import ROOT

from ssd_jax.commands.configs import read_about, rename_config
from ssd_jax.runs.config_file import load_config

CONFIGS = sorted((ROOT / "configs").glob("*.py"))


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test in an empty folder."""
    monkeypatch.chdir(tmp_path)


def test_configs_lists_every_config_in_80_columns(capsys):
    assert run_command("configs") == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    rows = {line.split()[0]: line.split() for line in lines[2 : 2 + len(CONFIGS)]}
    assert sorted(rows) == [path.stem for path in CONFIGS]
    assert rows["ssd512_voc0712"] == ["ssd512_voc0712", "SSD512", "512", "VOC07+12", "Table", "6"]
    assert rows["own_data"] == ["own_data", "SSD300", "x", "0.25", "300", "yours", "ssd-jax"]
    assert rows["own_data_small"] == ["own_data_small", "SSD", "x", "0.25", "160", "yours", "ssd-jax"]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_listed_data_are_those_of_the_config(path):
    splits = {
        "VOC07": "trainval",
        "VOC07+12": "VOC2007/trainval+VOC2012/trainval",
        "VOC07++12": "VOC2007/trainval+VOC2007/test+VOC2012/trainval",
        "COCO": "trainval35k",
        "ILSVRC DET": "train+val1",
    }
    config, listed = load_config(path), read_about(path)["data"]
    data = listed.removesuffix("+COCO")
    assert config.data.train_split == splits.get(data, "train")
    assert config.data.root == {"yours": "", "generated": "shapes"}.get(data, config.data.root)
    assert config.train.transfer == (listed != data)


def test_configs_prints_the_file_of_a_config(capsys):
    assert run_command("configs", "own_data") == 0
    assert capsys.readouterr().out == (ROOT / "configs" / "own_data.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_copy_is_the_config_with_the_name_of_the_new_file(path, capsys):
    assert run_command("configs", path.stem, "--copy", "new/my_config.py") == 0
    copy = Path("new/my_config.py")
    assert "ssd-jax train new/my_config.py" in capsys.readouterr().out
    assert load_config(copy) == dataclasses.replace(load_config(path), name="my_config")
    text = copy.read_text(encoding="utf-8")
    docs = ast.get_docstring(ast.parse(text))
    assert docs is not None and "ssd-jax train my_config.py" in docs
    assert f"ssd-jax train {path.stem}\n" not in f"{docs}\n" and f"runs/{path.stem}\n" not in f"{docs}\n"


ODD_NAMES = ["my config.py", "été.py", *([] if os.name == "nt" else ['a"b.py', "back\\slash.py", "odd\udce9.py"])]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_copy_may_have_any_file_name(name):
    assert run_command("configs", "shapes", "--copy", name) == 0
    assert load_config(Path(name)).name == Path(name).stem


def test_rename_config_keeps_names_that_only_begin_like_the_config():
    text = 'ssd-jax train shapes\nssd-jax train shapes_2\nssd-jax evaluate runs/shapes\nruns/shapes_2\nname="shapes"\n'
    assert rename_config(text, "shapes", Path("b/my.py")) == (
        "ssd-jax train my.py\nssd-jax train shapes_2\nssd-jax evaluate runs/my\nruns/shapes_2\nname=\"my\"\n"
    )  # fmt: skip


def test_copy_does_not_replace_a_file(run_failing_command):
    Path("mine.py").write_text("precious")
    message = run_failing_command("configs", "own_data", "--copy", "mine.py")
    assert "--copy mine.py" in message and "exists" in message
    assert Path("mine.py").read_text() == "precious"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["own_dta", "--copy", "a.py"], ["own_dta", "own_data"]),
        (["own_data", "--copy", "a.txt"], ["--copy a.txt", ".py"]),
        (["own_data", "--copy", "folder"], ["--copy folder", ".py"]),
        (["own_data", "--copy", "file.txt/a.py"], ["a.py"]),
        (["--copy", "a.py"], ["--copy a.py", "own_data"]),
        (["folder"], ["folder"]),
    ],
)
def test_mistake_is_one_line_that_names_the_argument(run_failing_command, argv, words):
    Path("folder").mkdir()
    Path("file.txt").touch()
    message = run_failing_command("configs", *argv)
    assert len(message.splitlines()) == 1
    for word in words:
        assert word in message
    assert not Path("a.py").exists()
