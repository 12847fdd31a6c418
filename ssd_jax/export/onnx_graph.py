"""A builder for ONNX graphs: operators are added one by one, and arrays become constants of the graph."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

OPSET, IR_VERSION = 17, 8
"""Versions of the operators and of the file format. Runtimes since 2023 read them; several reject newer ones."""

Input = str | np.ndarray | np.generic


class GraphBuilder:
    """A graph under construction.

    Tensors are named by strings. A method that adds an operator returns the name of its output, to pass on as an input.

    Args:
        half: Whether weights are stored as float16. They are converted to float32 before they are used, and most
            runtimes do this once, when they load the file.
    """

    def __init__(self, *, half: bool = False) -> None:
        self._half = half
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._scope: tuple[str, ...] = ()
        self._used: Counter[str] = Counter()

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Put a name in front of the names of all operators and constants that are added in a ``with`` block."""
        outer, self._scope = self._scope, (*self._scope, name)
        try:
            yield
        finally:
            self._scope = outer

    def weight(self, name: str, value: np.ndarray) -> str:
        """Add a trained array under its own name, stored as float16 if the graph is built so."""
        if not self._half:
            return self._store(name, np.asarray(value, np.float32))
        stored = self._store(name, np.asarray(value, np.float16))
        return self.add("Cast", stored, to=onnx.TensorProto.FLOAT)

    def add(self, operator: str, *inputs: Input, **attributes: Any) -> str:
        """Add an operator with one output.

        Args:
            operator: Name of the operator, such as "Conv".
            inputs: Names of tensors, or arrays that become constants. An empty string leaves out an optional input.
            attributes: Attributes of the operator.

        Returns:
            The name of the output.
        """
        return self.add_multiple(operator, 1, *inputs, **attributes)[0]

    def add_multiple(self, operator: str, outputs: int, *inputs: Input, **attributes: Any) -> list[str]:
        """Add an operator with several outputs, and return their names."""
        name = self._make_unique(operator)
        inputs_by_name = [value if isinstance(value, str) else self._add_constant(value) for value in inputs]
        names = [name] if outputs == 1 else [f"{name}:{number}" for number in range(outputs)]
        self._nodes.append(helper.make_node(operator, inputs_by_name, names, name, **attributes))
        return names

    def set_name(self, tensor: str, name: str) -> str:
        """Give a tensor another name, such as that of an output of the graph, and return it."""
        self._nodes.append(helper.make_node("Identity", [tensor], [name], f"output/{name}"))
        return name

    def finish(
        self, name: str, inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[onnx.ValueInfoProto]
    ) -> onnx.ModelProto:
        """Return the finished model with the given inputs and outputs."""
        graph = helper.make_graph(self._nodes, name, inputs, outputs, list(self._constants.values()))
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="ssd-jax"
        )

    def _add_constant(self, value: np.ndarray | np.generic) -> str:
        return self._store(self._make_unique("constant"), np.asarray(value))

    def _store(self, name: str, value: np.ndarray) -> str:
        assert name not in self._constants, name
        self._constants[name] = numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape), name)
        return name

    def _make_unique(self, name: str) -> str:
        path = "/".join((*self._scope, name))
        self._used[path] += 1
        return path if self._used[path] == 1 else f"{path}_{self._used[path]}"
