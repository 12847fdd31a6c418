"""Costs of a compiled program: FLOPs, memory, and the collectives and host transfers in its HLO text."""

import math
import re
from dataclasses import dataclass
from typing import Any

import jax
import msgspec

# From https://openxla.org/xla/operation_semantics. An asynchronous collective has a "-start" and a "-done"
# instruction; only the first is counted.
COLLECTIVES = (
    "all-gather", "all-reduce", "all-to-all", "collective-broadcast", "collective-permute", "ragged-all-to-all",
    "reduce-scatter", "recv", "send",
)  # fmt: skip
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?[\w.-]+ = (\(.*?\)|\w+\[[\d,]*\]) ([a-z][a-z0-9-]*)\(")
_ARRAY = re.compile(r"[a-z]\w*\[[\d,]*\]")
_HOST_CALL = re.compile(r'custom_call_target="([^"]*(?:callback|[Hh]ost)[^"]*)"')
_HOST_MEMORY = "S(5)"  # marks an array in memory space 5, the memory of the host


@dataclass(frozen=True)
class Collective:
    """A communication operation between devices, such as an all-reduce."""

    kind: str
    """Opcode of HLO without "-start", such as all-reduce."""
    arrays: tuple[str, ...]
    """HLO types of the arrays that one device receives, such as f32[3,3,512,512]."""

    @property
    def size(self) -> int:
        """Total size of the arrays, in bytes."""
        return sum(count_array_bytes(array) for array in self.arrays)


@dataclass(frozen=True)
class Memory:
    """Memory that a program needs on one device, in bytes."""

    arguments: int
    temporaries: int
    outputs: int
    aliased: int
    """Size of the outputs that reuse the memory of an argument."""

    @property
    def peak(self) -> int:
        """Total memory in bytes. An output that reuses the memory of an argument is not counted again."""
        return self.arguments + self.temporaries + self.outputs - self.aliased


# Fields of Costs that have another name in the JSON files of `ssd-jax aot --json`, and their names there.
_JSON_NAMES = {
    "model_flops": "asked_flops",
    "needed_memory": "needed",
    "available_memory": "available",
    "host_transfers": "host",
    "compile_seconds": "seconds",
}


class Costs(msgspec.Struct, frozen=True, rename=_JSON_NAMES):
    """Costs of one execution of a program on one device."""

    model_flops: float
    """FLOPs of the convolutions and matrix products before compilation, as `flops.count_flops` counts them."""
    flops: float | None = None
    """FLOPs of the compiled program as the compiler counts them, with each loop body counted once. None if the compiler
    reports no FLOPs, as for CUDA or after a failed compilation."""
    bytes_accessed: float | None = None
    """Bytes read and written as the compiler counts them, or None if the compiler reports no bytes."""
    memory: Memory | None = None
    """Memory of the program, or None if compilation failed because the program did not fit."""
    needed_memory: float | None = None
    """Needed memory in bytes, as reported by a failed compilation; otherwise None."""
    available_memory: float | None = None
    """Available memory in bytes, as reported by a failed compilation; otherwise None."""
    collectives: tuple[Collective, ...] = ()
    host_transfers: tuple[str, ...] = ()
    """Operations of the program that move data to or from the host."""
    compile_seconds: float = 0.0


def read_compiled(compiled: jax.stages.Compiled, model_flops: float, compile_seconds: float) -> Costs:
    """Return the costs of a compiled program.

    Args:
        compiled: The compiled program.
        model_flops: Result of `flops.count_flops` for the program.
        compile_seconds: Duration of the compilation, in seconds.
    """
    costs = compiled.cost_analysis() or {}
    memory: Any = compiled.memory_analysis()
    hlo = compiled.as_text() or ""
    return Costs(
        model_flops=model_flops,
        flops=costs.get("flops"),
        bytes_accessed=costs.get("bytes accessed"),
        memory=Memory(
            memory.argument_size_in_bytes,
            memory.temp_size_in_bytes,
            memory.output_size_in_bytes,
            memory.alias_size_in_bytes,
        ),
        collectives=find_collectives(hlo),
        host_transfers=find_host_transfers(hlo),
        compile_seconds=compile_seconds,
    )


def find_collectives(hlo: str) -> tuple[Collective, ...]:
    """Return the collectives of an HLO text in order. An instruction in the body of a loop is listed only once."""
    collectives = []
    for types, opcode, line in _parse_instructions(hlo):
        kind = opcode.removesuffix("-start")
        if kind not in COLLECTIVES or _is_host_transfer(line):
            continue
        arrays = tuple(_ARRAY.findall(types))
        if opcode in (
            "all-gather-start",
            "collective-permute-start",
        ):  # the types list operands, then results, and internal u32[] values
            arrays = tuple(array for array in arrays if array != "u32[]")
            arrays = arrays[len(arrays) // 2 :]
        elif kind in ("send", "recv"):  # the types are the array, u32[] and a token
            arrays = arrays[:1]
        collectives.append(Collective(kind, arrays))
    return tuple(collectives)


def find_host_transfers(hlo: str) -> tuple[str, ...]:
    """Return the operations of an HLO text that move data to or from the host.

    Each operation is given by its opcode, or by its target if it is a custom call.
    """
    transfers = []
    for _, opcode, line in _parse_instructions(hlo):
        call = _HOST_CALL.search(line) if opcode == "custom-call" else None
        if call:
            transfers.append(call[1])
        elif opcode in ("infeed", "outfeed") or (opcode in ("send", "recv") and _is_host_transfer(line)):
            transfers.append(opcode)
        elif _HOST_MEMORY in line:
            transfers.append(f"{opcode} in host memory")
    return tuple(transfers)


def _is_host_transfer(line: str) -> bool:
    return "is_host_transfer=true" in line


def _parse_instructions(hlo: str) -> list[tuple[str, str, str]]:
    """Return the type, opcode and line of each instruction in an HLO text.

    Layouts such as {1,0:T(8,128)} are removed from the types.
    """
    instructions = []
    for line in hlo.splitlines():
        plain = re.sub(r"\{[^{}]*\}", "", line)
        if instruction := _INSTRUCTION.match(plain):
            instructions.append((instruction[1], instruction[2], line))
    return instructions


def count_array_bytes(array: str) -> int:
    """Return the size in bytes of an HLO array type such as f32[3,3,512,512].

    Each element counts as at least one byte, also for the types pred and s4.
    """
    dtype, _, shape = array.rstrip("]").partition("[")
    bits = re.search(r"\d+", dtype)
    width = max(1, int(bits[0]) // 8) if bits else 1
    return width * math.prod(int(n) for n in shape.split(",") if n)


# Patterns for two messages of libtpu, about all memory of a program and about its temporary memory only.
_OUT_OF_MEMORY = (
    re.compile(r"Used ([\d.]+)([KMGT]?) of ([\d.]+)([KMGT]?) hbm"),
    re.compile(r"temporaries \(([\d.]+)([KMGT]?)\) exceeds available HBM \(([\d.]+)([KMGT]?)\)"),
)
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def read_out_of_memory_error(error: Exception, model_flops: float, compile_seconds: float) -> Costs | None:
    """Read the costs of a program that does not fit in memory from the error of its compilation.

    Args:
        error: Exception of the compiler.
        model_flops: Result of `flops.count_flops` for the program.
        compile_seconds: Duration of the compilation, in seconds.

    Returns:
        The costs, with the needed and the available memory if the error message names them. None if the error has
        another reason.
    """
    if "RESOURCE_EXHAUSTED" not in str(error):
        return None
    for message in _OUT_OF_MEMORY:
        if numbers := message.search(str(error)):
            needed, available = (float(numbers[i]) * _UNITS[numbers[i + 1]] for i in (1, 3))
            return Costs(model_flops, needed_memory=needed, available_memory=available, compile_seconds=compile_seconds)
    return Costs(model_flops, compile_seconds=compile_seconds)
