"""Tests that execute the notebooks with few steps, and that compare their saved outputs with their text."""

import os
import re
import shutil
from pathlib import Path
from typing import Any

import nbformat
import pytest
from helpers.cli import ROOT, TINY, write_voc_folder
from nbclient import NotebookClient

NAMES = ("first_tour", "own_data")
MAX_BYTES = 1_500_000


def read_notebook(name: str) -> Any:
    """Return a notebook of the repository, after validating its format."""
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    return notebook


def execute_notebook(name: str, folder: Path, **parameters: object) -> Any:
    """Execute a notebook in a folder that contains only notebooks, and raise the error of a failed cell."""
    shutil.copytree(ROOT / "notebooks", folder / "notebooks")
    notebook = read_notebook(name)
    for key, value in parameters.items():
        (cell,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
        assert re.search(rf"^{key} = ", cell.source, re.MULTILINE), "the notebook has the parameter"
        cell.source += f"\n{key} = {value!r}"
    client = NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": str(folder / "notebooks")}}, coalesce_streams=True
    )
    client.execute(env=os.environ | {"PYTHONPATH": str(ROOT), "IPYTHONDIR": str(folder / "ipython")})
    return notebook


def get_printed_text(notebook: Any, stream: str = "stdout") -> str:
    """Return all text that the cells printed to a stream."""
    outputs = (output for cell in notebook.cells for output in cell.get("outputs", ()))
    return "".join(o.text for o in outputs if o.output_type == "stream" and o.name == stream)


def count_pictures(notebook: Any) -> int:
    """Return the number of images in the outputs of a notebook."""
    outputs = (output for cell in notebook.cells for output in cell.get("outputs", ()))
    return sum(1 for o in outputs if {"image/jpeg", "image/png"} & set(o.get("data", ())))


def assert_clean(notebook: Any, allowed_path: Path | None = None) -> None:
    """Assert that the outputs have no error, warning or absolute path, and only lines of the progress on stderr."""
    for cell in notebook.cells:
        assert not any(output.output_type == "error" for output in cell.get("outputs", ()))
    printed = (get_printed_text(notebook) + get_printed_text(notebook, "stderr")).replace(str(allowed_path), "")
    assert not re.search(r"warning|traceback|error:", printed, re.IGNORECASE), printed
    assert not re.search(r"(?<![\w.:/])/\w+/\w", printed), printed
    lines = filter(None, get_printed_text(notebook, "stderr").splitlines())
    shown = r"(training|evaluating|initializing the network|reading images):"
    assert all(re.match(shown, line) for line in lines)


@pytest.mark.slow
def test_first_tour_shows_each_part_of_the_method(tmp_path):
    notebook = execute_notebook("first_tour", tmp_path)
    assert_clean(notebook)
    assert count_pictures(notebook) == count_pictures(read_notebook("first_tour")) == 8
    printed = get_printed_text(notebook)
    assert "circle, square, star, triangle" in printed
    for numbers in (r"\b1856\b.*\b128 px", r"\b32 of 1856\b", r"\b32 positives, 96\b"):
        assert re.search(numbers, printed), numbers
    # The text says that the loss is 4 ln 5 for equal scores of all classes, and 0 for the exact targets.
    assert re.search(r" 6\.438 ", printed) and re.search(r" 0\.000 +0\.000 +0\.000", printed)


@pytest.mark.slow
def test_own_data_generates_a_data_set_and_finds_its_mistake(tmp_path):
    notebook = execute_notebook("own_data", tmp_path, STEPS=4)
    assert_clean(notebook)
    assert count_pictures(notebook) == count_pictures(read_notebook("own_data")) == 6
    printed = get_printed_text(notebook)
    assert "train: 240 images" in printed
    assert re.search(r"note: 1 .*train_0007", printed), "the note about the wrong box"
    assert re.search(r"Split test\b", printed)
    run = tmp_path / "runs" / "own_data_tour"
    assert {"config.json", "curves.png", "metrics.json", "report.html"} <= {file.name for file in run.iterdir()}


@pytest.mark.slow  # trains in a notebook
def test_own_data_runs_on_a_folder_without_test_split(tmp_path):
    """The test changes only the parameters of the notebook."""
    root = write_voc_folder(tmp_path / "mine", {"train": 12, "val": 3})
    notebook = execute_notebook("own_data", tmp_path, FOLDER=str(root), RUN="../runs/mine", CONFIG=TINY, STEPS=2)
    assert_clean(notebook, allowed_path=root)
    printed = get_printed_text(notebook)
    assert "train    12 images" in printed and "val: 3 of 3 images" in printed
    assert "'val' instead" in printed
    assert (tmp_path / "runs" / "mine" / "report.html").exists()
    assert not (tmp_path / "runs" / "game_pieces").exists()


@pytest.mark.parametrize("name", NAMES)
def test_saved_outputs_are_clean_and_from_one_execution(name):
    notebook = read_notebook(name)
    assert_clean(notebook)
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    assert (ROOT / "notebooks" / f"{name}.ipynb").stat().st_size < MAX_BYTES


def test_saved_first_tour_has_a_trained_detector():
    printed = get_printed_text(read_notebook("first_tour"))
    untrained, trained, _ = re.findall(r"(\d\.\d{3})$", printed, re.MULTILINE)[-7:-4]
    assert float(trained) < 0.3 * float(untrained)


def test_saved_own_data_finds_the_wrong_class():
    printed = get_printed_text(read_notebook("own_data"))
    assert re.search(r"test_0005 .*: triangle 0\.\d+ +missed: star\n", printed)
    val_area, test_area = re.findall(r"^all, mean .* (\d\.\d+)$", printed, re.MULTILINE)
    assert min(float(val_area), float(test_area)) > 0.8
