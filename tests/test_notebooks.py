"""The notebooks, executed anew with fewer steps; and what their committed outputs show."""

import os
import re
import shutil
from pathlib import Path
from typing import Any

import nbformat
import pytest
from helpers.cli import ROOT, write_voc_folder
from nbclient import NotebookClient

NAMES = ("first_tour", "own_data")
MOST_BYTES = 1_500_000


def read(name: str) -> Any:
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    return notebook


def execute(name: str, folder: Path, **parameters: object) -> Any:
    """Executed in a folder that holds the notebooks and the configs alone. An error in a cell is raised."""
    for part in ("notebooks", "configs"):
        shutil.copytree(ROOT / part, folder / part)
    notebook = read(name)
    (cell,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
    for key, value in parameters.items():
        assert re.search(rf"^{key} = ", cell.source, re.MULTILINE), "a parameter that is there"
        cell.source += f"\n{key} = {value!r}"
    client = NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": str(folder / "notebooks")}}, coalesce_streams=True
    )
    client.execute(env=os.environ | {"PYTHONPATH": str(ROOT), "IPYTHONDIR": str(folder / "ipython")})
    return notebook


def text(notebook: Any, stream: str = "stdout") -> str:
    outputs = (output for cell in notebook.cells for output in cell.get("outputs", ()))
    return "".join(o.text for o in outputs if o.output_type == "stream" and o.name == stream)


def pictures(notebook: Any) -> int:
    outputs = (output for cell in notebook.cells for output in cell.get("outputs", ()))
    return sum(1 for o in outputs if {"image/jpeg", "image/png"} & set(o.get("data", ())))


def assert_clean(notebook: Any, told_of: Path | None = None) -> None:
    """Nothing but numbers, pictures and bars of progress: no error, no warning, no path of a machine."""
    for cell in notebook.cells:
        assert not any(output.output_type == "error" for output in cell.get("outputs", ()))
    told = (text(notebook) + text(notebook, "stderr")).replace(str(told_of), "")
    assert not re.search(r"warning|traceback|error:", told, re.IGNORECASE), told
    assert not re.search(r"(?<![\w.:/])/\w+/\w", told), told
    assert all("%|" in line for line in text(notebook, "stderr").splitlines() if line), "tqdm's bars alone"


def test_first_tour(tmp_path):
    """Without a run at hand: it trains one, here for two steps, and shows all the same."""
    notebook = execute("first_tour", tmp_path, STEPS=2)
    assert_clean(notebook)
    assert pictures(notebook) == pictures(read("first_tour")) == 8
    told = text(notebook)
    assert "Step 2. Classes: circle, square, star, triangle" in told
    assert "1856 in total, for images of 128 px" in told
    assert "32 of 1856 default boxes are matched" in told
    assert "32 positives, 96 chosen negatives" in told
    assert re.search(r"zero offsets.* 6\.438 ", told), "4 ln 5, as the text says"
    assert re.search(r"exactly the targets +0\.000 +0\.000 +0\.000", told)


def test_own_data(tmp_path):
    notebook = execute("own_data", tmp_path, STEPS=4)
    assert_clean(notebook)
    assert pictures(notebook) == pictures(read("own_data")) == 6
    told = text(notebook)
    assert "train: 240 pictures of circle, square, star, triangle" in told
    assert re.search(r"note: 1 .*train_0007", told), "the box made wrong"
    assert "Split test, checkpoint of step" in told
    run = tmp_path / "runs" / "own_data_tour"
    assert {"config.json", "curves.png", "metrics.json"} <= {file.name for file in run.iterdir()}


def test_own_data_of_another_folder(tmp_path):
    """The parameters are all that a user must change, also where there is no test split."""
    root = write_voc_folder(tmp_path / "mine", {"train": 12, "val": 3})
    notebook = execute("own_data", tmp_path, FOLDER=str(root), RUN="../runs/mine", STEPS=2)
    assert_clean(notebook, told_of=root)
    told = text(notebook)
    assert "train: 12 pictures" in told and "val: 3 of 3 pictures have mistakes" in told
    assert "on 'val' instead" in told
    assert not (tmp_path / "runs" / "game_pieces").exists()


@pytest.mark.parametrize("name", NAMES)
def test_committed_outputs(name):
    """What a reader sees who executes nothing: pictures, made by all cells in one go."""
    notebook = read(name)
    assert_clean(notebook)
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    assert (ROOT / "notebooks" / f"{name}.ipynb").stat().st_size < MOST_BYTES


def test_committed_first_tour_is_of_a_trained_detector():
    told = text(read("first_tour"))
    assert "Step 540." in told, "of make demo"
    knows_nothing, network, _ = re.findall(r"(\d\.\d{3})$", told, re.MULTILINE)[-7:-4]
    assert float(network) < 0.3 * float(knows_nothing)


def test_committed_own_data_found_the_wrong_name():
    """As its text says; and on a test split that was learned well enough to tell anything."""
    told = text(read("own_data"))
    assert re.search(r"test_0005 +wrongly found: triangle 0\.\d+ +missed: star\n", told)
    (area,) = re.findall(r"all, mean .* (\d\.\d+)\n", told)
    assert float(area) > 0.8
