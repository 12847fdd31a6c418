"""Compare the exported files of several networks, in each format, with the original: detections, size and time.

    python -m benchmarks.exports DATA [--networks ssd300 shapes] [--pythons .venv-parity/bin/python ...]

1. Write each network to a file of each format by `ssd-jax export`. Large networks have random weights.
2. Detect objects in pictures of a data set by the original and by each file, and compare the detections.
3. Measure the time for one picture. The original, the files and torchvision's network in eager mode take turns, each in
   a process of its own.
4. Print a table, and write it to OUT/exports.md and OUT/exports.json.

Formats need different packages, which need not be in one environment: --pythons names interpreters of further
environments, and each format is written and run by the first interpreter that has its packages. What no environment has
is left out, with a line.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import tyro
from tabulate import tabulate

from benchmarks.command import run
from benchmarks.exports.networks import NETWORKS, prepare_network
from benchmarks.exports.worker import read_detections
from benchmarks.speed.interleaved import ROOT
from benchmarks.speed.machine import describe_machine
from ssd_jax.config import Config, Data
from ssd_jax.data.formats.open import open_source
from ssd_jax.data.image import reduce_to_fit
from ssd_jax.errors import UserError
from ssd_jax.export.parity import compare_detections
from ssd_jax.export.pictures import choose_positions
from ssd_jax.exported.reading import FORMATS, measure_size
from ssd_jax.files import make_user_path, write_text
from ssd_jax.model_zoo.opening import open_detector

ORIGINAL, TORCHVISION = "JAX (original)", "torchvision, eager"
WRITER_PACKAGES: Mapping[str, tuple[str, ...]] = {
    "stablehlo": ("jax", "flatbuffers"),
    "onnx": ("onnx", "onnxruntime"),
    "openvino": ("onnx", "openvino"),
    "tflite": ("tensorflow",),
}
READER_PACKAGES: Mapping[str, tuple[str, ...]] = {
    **WRITER_PACKAGES,
    "onnx": ("onnxruntime",),
    "openvino": ("openvino",),
    "tflite": ("ai_edge_litert",),
    TORCHVISION: ("torch", "torchvision"),
}


@dataclass(frozen=True)
class Options:
    data: Annotated[Path, tyro.conf.Positional]
    """Folder of a data set."""
    split: str = "test"
    """Split of the data set."""
    networks: tuple[str, ...] = NETWORKS
    """Networks to compare."""
    formats: tuple[str, ...] = tuple(FORMATS)
    """Formats to compare."""
    pictures: int = 72
    """Number of pictures, if the split has as many."""
    rounds: int = 7
    """Number of rounds. Each variant runs once per round; the median is printed."""
    threads: int = 2
    """Number of threads of each process."""
    pythons: tuple[Path, ...] = ()
    """Python interpreters of further environments."""
    out: Path = Path("runs/exports")
    """Folder for the networks, the files and the table."""


@dataclass(frozen=True)
class Row:
    """A row of the table. None: not measured."""

    network: str
    format: str
    megabytes: float | None
    """Size of the file, without that of the original."""
    detections: int | None = None
    """Number of detections of the original."""
    alone: int | None = None
    """Number of detections that only the original or only the file has, where scores leave no doubt."""
    near: int | None = None
    """Number of detections that only one of them has because of rounding."""
    boxes_px: float | None = None
    """Largest difference of a coordinate in pixels."""
    scores: float | None = None
    """Largest difference of a score."""
    milliseconds: float | None = None
    """Median time for a picture."""


@cache
def find_packages(python: str) -> frozenset[str]:
    """Return which of the packages that formats need an interpreter can import.

    Raises:
        UserError: If the interpreter cannot be started.
    """
    names = sorted({name for packages in (*WRITER_PACKAGES.values(), *READER_PACKAGES.values()) for name in packages})
    code = f"import importlib.util as u; print(*(n for n in {names} if u.find_spec(n)))"
    try:
        result = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise UserError(f"--pythons {python}: cannot be started ({error})") from None
    return frozenset(result.stdout.split())


def find_python(pythons: Sequence[str], packages: Sequence[str]) -> str | None:
    """Return the first interpreter that can import some packages, or None."""
    return next((python for python in pythons if find_packages(python) >= set(packages)), None)


class Worker:
    """A process that has detected objects in all pictures by one detector, and times it on request."""

    def __init__(self, python: str, source: str, pictures: Path, detections: Path, threads: int) -> None:
        self.detections = detections
        self._source = source
        command = [python, "-m", "benchmarks.exports.worker", source, str(pictures), str(detections), str(threads)]
        variables = {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(
            command, env=os.environ | variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._read_answer()

    def time_round(self) -> float:
        """Detect for about half a second, and return the seconds per call."""
        assert self._process.stdin is not None
        print("again", file=self._process.stdin, flush=True)
        return self._read_answer()["seconds"]

    def _read_answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise UserError(f"{self._source}: its process ended early. The reason is printed above")

    def close(self) -> None:
        """End the process."""
        self._process.communicate("")


def write_pictures(options: Options, side: int, file: Path) -> None:
    """Write pictures of the data set to a file, reduced as for detection."""
    source = open_source(Data(root=str(make_user_path(options.data))), options.split)
    positions = choose_positions(len(source), options.pictures)
    np.savez(file, *(reduce_to_fit(source.image(position), (side, side)) for position in positions))


def export_file(python: str, source: str, format_name: str, file: Path) -> str | None:
    """Write a file by `ssd-jax export`, and return the reason if it failed."""
    command = [python, "-m", "ssd_jax", "export", source, "--format", format_name, "--out", str(file), "--quiet"]
    result = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    return None if result.returncode == 0 else (result.stderr.strip().splitlines() or ["no message"])[-1]


def prepare_sources(name: str, options: Options, pythons: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return the interpreter and the model or file of each variant of a network, after writing the files."""
    source, torchvision_code = prepare_network(name, options.out)
    variants = {ORIGINAL: (pythons[0], source)}
    for format_name in options.formats:
        writer, reader = (find_python(pythons, of[format_name]) for of in (WRITER_PACKAGES, READER_PACKAGES))
        file = options.out / f"{name}{FORMATS[format_name].ending}"
        if writer is None or reader is None:
            needed = sorted({*WRITER_PACKAGES[format_name], *READER_PACKAGES[format_name]})
            print(f"{name}, {format_name}: skipped, because no interpreter has {' and '.join(needed)}", flush=True)
        elif problem := export_file(writer, source, format_name, file):
            print(f"{name}, {format_name}: not exported: {problem}", flush=True)
        else:
            variants[format_name] = (reader, str(file))
    if torchvision_code is None:
        print(f"{name}: torchvision has no such network", flush=True)
    elif (python := find_python(pythons, READER_PACKAGES[TORCHVISION])) is None:
        print(f"{name}: torchvision skipped, because no interpreter has torch", flush=True)
    else:
        variants[TORCHVISION] = (python, str(torchvision_code))
    return variants


def compare_network(name: str, options: Options, pythons: Sequence[str]) -> list[Row]:
    """Return the rows of a network."""
    variants = prepare_sources(name, options, pythons)
    config = open_detector(variants[ORIGINAL][1]).config
    pictures = options.out / "pictures.npz"
    write_pictures(options, config.data.max_image_size, pictures)
    workers: dict[str, Worker] = {}
    try:
        for variant, (python, source) in variants.items():
            detections = options.out / f"{name}_{len(workers)}.npz"
            workers[variant] = Worker(python, source, pictures, detections, options.threads)
        rounds = [{variant: worker.time_round() for variant, worker in workers.items()} for _ in range(options.rounds)]
    finally:
        for worker in workers.values():
            worker.close()
    milliseconds = {variant: 1000 * median(times[variant] for times in rounds) for variant in workers}
    files = {variant: worker.detections for variant, worker in workers.items()}
    return [make_row(name, variant, variants[variant][1], config, files, milliseconds[variant]) for variant in workers]


def make_row(
    network: str, variant: str, source: str, config: Config, files: Mapping[str, Path], milliseconds: float
) -> Row:
    """Return the row of a variant.

    Args:
        network: Name of the network.
        variant: Format of a file, or another variant.
        source: The file.
        config: Config of the network.
        files: Files of the detections of each variant.
        milliseconds: Time for a picture.
    """
    if variant not in FORMATS:
        return Row(network, variant, None, milliseconds=milliseconds)
    parity = compare_detections(read_detections(files[ORIGINAL]), read_detections(files[variant]), config)
    return Row(
        network, variant, measure_size(Path(source)) / 1e6, parity.detections, parity.alone, parity.near, parity.boxes,
        parity.scores, milliseconds,
    )  # fmt: skip


def format_rows(rows: Sequence[Row]) -> str:
    """Return the table."""

    def format_number(value: float | None, pattern: str) -> str:
        return "" if value is None else format(value, pattern)

    originals = {row.network: row.milliseconds for row in rows if row.format == ORIGINAL}
    table = []
    for row in rows:
        original, own = originals.get(row.network), row.milliseconds
        table.append({
            "network": row.network,
            "format": row.format,
            "MB": format_number(row.megabytes, ".1f"),
            "detections": format_number(row.detections, "d"),
            "of one only": format_number(row.alone, "d"),
            "ties": format_number(row.near, "d"),
            "boxes, px": format_number(row.boxes_px, ".1e"),
            "scores": format_number(row.scores, ".1e"),
            "ms per image": format_number(own, ".1f"),
            "time / JAX": format_number(own / original if own and original else None, ".2f"),
        })  # fmt: skip
    return tabulate(table, headers="keys", tablefmt="github", disable_numparse=True)


def main(argv: Sequence[str]) -> None:
    options = tyro.cli(Options, args=list(argv), prog="python -m benchmarks.exports", description=__doc__)
    for option, names, known in (("networks", options.networks, NETWORKS), ("formats", options.formats, FORMATS)):
        if unknown := set(names) - set(known):
            raise UserError(f"--{option} {min(unknown)}: unknown. Choose from {', '.join(known)}")
    pythons = [sys.executable, *(str(python.absolute()) for python in options.pythons)]
    for python in pythons:
        find_packages(python)
    options.out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    for name in options.networks:
        rows += compare_network(name, options, pythons)
        print(f"\n{format_rows([row for row in rows if row.network == name])}\n", flush=True)
    table = f"{describe_machine()}; {options.threads} threads\n\n{format_rows(rows)}\n"
    print(table)
    write_text(options.out / "exports.md", table)
    write_text(options.out / "exports.json", json.dumps([asdict(row) for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    run(main)
