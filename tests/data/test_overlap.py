"""Test of the message about images that are in two splits."""

import pytest
from helpers.cli import write_voc_folder

from ssd_jax.config import Data
from ssd_jax.data.formats.open import open_source
from ssd_jax.data.run_splits import print_overlap


@pytest.mark.parametrize(("train_split", "shared"), [("train", 0), ("train+val[:2]", 2), ("val", 3)])
def test_print_overlap_counts_the_images_of_both_splits(tmp_path, capsys, train_split, shared):
    root = write_voc_folder(tmp_path, {"train": 4, "val": 3})
    train_source, val_source = (open_source(Data(root=str(root)), split) for split in (train_split, "val"))
    print_overlap(train_source, val_source)
    printed = capsys.readouterr().out
    assert ("also in the train split" in printed) == bool(shared)
    assert f"{shared} of the 3 val images" in printed or not shared
