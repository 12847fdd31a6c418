"""Run ONNX models in tests. Importing this module skips the tests of a module if the extra ``onnx`` is missing."""

from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="needs the extra onnx")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")


def run_model(model: Any, **inputs: np.ndarray) -> dict[str, np.ndarray]:
    """Check a model with ONNX's own checker, run it with onnxruntime, and return its outputs by name."""
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip((output.name for output in session.get_outputs()), session.run(None, inputs), strict=True))
