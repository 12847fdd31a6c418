"""Write the ``.pth`` files of this folder with torch. The tests that read them do not need torch.

    python tests/assets/weights/make_torch_files.py

The files in the repository were written by torch 2.14.1 on a CPU. Their values are computed with
formulas that tests/weights/formats/test_torch_file.py repeats.
"""

import argparse
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from torch import nn

HERE = Path(__file__).parent


def make_state_dict() -> OrderedDict[str, torch.Tensor]:
    """Return a state dict with tensors that cover every supported dtype and every kind of view into a storage."""
    base = torch.arange(10, dtype=torch.float32) / 2
    tensors = {
        "conv.weight": (torch.arange(24, dtype=torch.float32) / 4 - 1).reshape(2, 3, 2, 2),
        "base": base,
        "shared": base,
        "part": base[3:7],
        "every_third": base[1::3],
        "transposed": torch.arange(6, dtype=torch.float32).reshape(2, 3).T,
        "channels_last": torch.arange(24, dtype=torch.float32)
        .reshape(1, 2, 3, 4)
        .contiguous(memory_format=torch.channels_last),
        "expanded": torch.tensor([[5.0]]).expand(2, 3),
        "parameter": nn.Parameter(torch.arange(3, dtype=torch.float32)),
        "scalar": torch.tensor(1.5),
        "empty": torch.zeros(0, 3),
        "half": torch.arange(5, dtype=torch.float16) / 8,
        "bfloat16": torch.arange(5, dtype=torch.bfloat16) / 8,
        "double": torch.arange(5, dtype=torch.float64) / 8,
        "int64": torch.tensor(7),
        "int32": torch.arange(-2, 2, dtype=torch.int32),
        "int16": torch.arange(-2, 2, dtype=torch.int16),
        "int8": torch.arange(-2, 2, dtype=torch.int8),
        "uint8": torch.arange(4, dtype=torch.uint8),
        "bool": torch.tensor([True, False]),
    }
    return OrderedDict(tensors)


def make_checkpoint() -> dict:
    """Return a checkpoint of a small network in DataParallel, as training scripts save it."""
    network = nn.DataParallel(nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)))
    with torch.no_grad():
        for number, parameter in enumerate(network.parameters()):
            parameter.copy_(number + torch.arange(parameter.numel(), dtype=torch.float32).reshape(parameter.shape) / 2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.001, momentum=0.9)
    network(torch.ones(1, 1, 2, 2)).sum().backward()
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[2, 4])
    optimizer.step()
    schedule.step()
    network.module[1].reset_running_stats()
    return {
        "model": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": schedule.state_dict(),
        "args": argparse.Namespace(lr=0.001, device=torch.device("cpu"), dtype=torch.float32, folder=Path("data")),
        "best": np.float64(0.25),
        "history": np.arange(3.0),
        "seen": {("a", 1), ("b", 2)},
        "epoch": 3,
    }


def main() -> None:
    torch.manual_seed(0)
    torch.save(make_state_dict(), HERE / "zip.pth")
    torch.save(make_state_dict(), HERE / "zip_protocol4.pth", pickle_protocol=4)
    torch.save(make_state_dict(), HERE / "legacy.pth", _use_new_zipfile_serialization=False)
    torch.save(make_checkpoint(), HERE / "zip_checkpoint.pth")
    torch.save(make_checkpoint(), HERE / "legacy_checkpoint.pth", _use_new_zipfile_serialization=False)
    torch.save(nn.Sequential(nn.Linear(1, 1)), HERE / "whole_module.pth")


if __name__ == "__main__":
    main()
