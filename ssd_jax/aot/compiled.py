"""What a compiled program says of itself: costs, memory, and in its HLO text what it exchanges with whom."""

import math
import re
from dataclasses import dataclass
from typing import Any

import jax

# https://openxla.org/xla/operation_semantics; "-start" begins an asynchronous one, its "-done" adds nothing.
COLLECTIVES = (
    "all-gather", "all-reduce", "all-to-all", "collective-broadcast", "collective-permute", "ragged-all-to-all",
    "reduce-scatter", "recv", "send",
)  # fmt: skip
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?[\w.-]+ = (\(.*?\)|\w+\[[\d,]*\]) ([a-z][a-z0-9-]*)\(")
_ARRAY = re.compile(r"[a-z]\w*\[[\d,]*\]")
_HOST_CALL = re.compile(r'custom_call_target="([^"]*(?:callback|[Hh]ost)[^"]*)"')
_HOST_MEMORY = "S(5)"  # memory space 5, in a layout


@dataclass(frozen=True)
class Collective:
    """Of all devices with each other."""

    kind: str
    arrays: tuple[str, ...]
    """What one device gets of it, such as f32[3,3,512,512]."""

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(array_bytes(array) for array in self.arrays)


@dataclass(frozen=True)
class Memory:
    """Bytes of one device."""

    arguments: int
    temporaries: int
    outputs: int
    aliased: int
    """Outputs that lie where an argument was."""

    @property
    def peak(self) -> int:
        return self.arguments + self.temporaries + self.outputs - self.aliased


@dataclass(frozen=True)
class Costs:
    """Of one device, in one run of the program."""

    asked_flops: float
    """Convolutions and matrix products, as `flops.count_flops` has them."""
    flops: float | None = None
    """As the compiler counts them in what it made, a loop's body once. None: it does not say (CUDA, or it gave up)."""
    bytes_accessed: float | None = None
    """Likewise."""
    memory: Memory | None = None
    """None: the compiler gave up, for want of memory."""
    needed: float | None = None
    """Bytes, as it said where it gave up, and"""
    available: float | None = None
    collectives: tuple[Collective, ...] = ()
    host: tuple[str, ...] = ()
    """What goes to the host or comes from it within the program."""
    seconds: float = 0.0
    """That compilation took."""


def read_compiled(compiled: jax.stages.Compiled, asked_flops: float, seconds: float) -> Costs:
    costs = compiled.cost_analysis() or {}
    memory: Any = compiled.memory_analysis()
    hlo = compiled.as_text() or ""
    return Costs(
        asked_flops=asked_flops,
        flops=costs.get("flops"),
        bytes_accessed=costs.get("bytes accessed"),
        memory=Memory(
            memory.argument_size_in_bytes,
            memory.temp_size_in_bytes,
            memory.output_size_in_bytes,
            memory.alias_size_in_bytes,
        ),
        collectives=find_collectives(hlo),
        host=find_host_transfers(hlo),
        seconds=seconds,
    )


def find_collectives(hlo: str) -> tuple[Collective, ...]:
    """In the order of the text, those of called computations too; one in a loop once."""
    found = []
    for types, opcode, line in _instructions(hlo):
        kind = opcode.removesuffix("-start")
        if kind not in COLLECTIVES or _is_host_transfer(line):
            continue
        arrays = tuple(_ARRAY.findall(types))
        if opcode in ("all-gather-start", "collective-permute-start"):  # operands, results, and u32[] of its own
            arrays = tuple(array for array in arrays if array != "u32[]")
            arrays = arrays[len(arrays) // 2 :]
        elif kind in ("send", "recv"):  # the array, u32[] and a token
            arrays = arrays[:1]
        found.append(Collective(kind, arrays))
    return tuple(found)


def find_host_transfers(hlo: str) -> tuple[str, ...]:
    """Opcodes, and targets of custom calls, that move data to or from the host."""
    found = []
    for _, opcode, line in _instructions(hlo):
        call = _HOST_CALL.search(line) if opcode == "custom-call" else None
        if call:
            found.append(call[1])
        elif opcode in ("infeed", "outfeed") or (opcode in ("send", "recv") and _is_host_transfer(line)):
            found.append(opcode)
        elif _HOST_MEMORY in line:
            found.append(f"{opcode} in the host's memory")
    return tuple(found)


def _is_host_transfer(line: str) -> bool:
    return "is_host_transfer=true" in line


def _instructions(hlo: str) -> list[tuple[str, str, str]]:
    """(type, opcode, line) of each; layouts, which hold brackets of their own, are gone from the type."""
    found = []
    for line in hlo.splitlines():
        plain = re.sub(r"\{[^{}]*\}", "", line)
        if instruction := _INSTRUCTION.match(plain):
            found.append((instruction[1], instruction[2], line))
    return found


def array_bytes(array: str) -> int:
    """Of a shape as HLO writes it: f32[3,3,512,512]; what is narrower than a byte (pred, s4) takes one."""
    dtype, _, shape = array.rstrip("]").partition("[")
    bits = re.search(r"\d+", dtype)
    width = max(1, int(bits[0]) // 8) if bits else 1
    return width * math.prod(int(n) for n in shape.split(",") if n)


# Both are libtpu's: of all that the program holds, and of what it holds besides its arguments.
_OUT_OF_MEMORY = (
    re.compile(r"Used ([\d.]+)([KMGT]?) of ([\d.]+)([KMGT]?) hbm"),
    re.compile(r"temporaries \(([\d.]+)([KMGT]?)\) exceeds available HBM \(([\d.]+)([KMGT]?)\)"),
)
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def read_out_of_memory(error: Exception, asked_flops: float, seconds: float) -> Costs | None:
    """What the compiler says where the program is too large for it; None: it is another error."""
    if "RESOURCE_EXHAUSTED" not in str(error):
        return None
    for message in _OUT_OF_MEMORY:
        if numbers := message.search(str(error)):
            needed, available = (float(numbers[i]) * _UNITS[numbers[i + 1]] for i in (1, 3))
            return Costs(asked_flops, needed=needed, available=available, seconds=seconds)
    return Costs(asked_flops, seconds=seconds)
