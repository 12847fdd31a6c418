"""Load `ssd-jax serve` on the loopback address: its speed, and ten thousand requests of which some are hostile.

    python -m benchmarks.serving MODEL [--requests 10000] [--seconds 10]

The server and the clients share the cores of this machine. The command fails if a good answer differs from what
`ssd_jax.load` detects in the same bytes, if a hostile request gets another status than it should, or if the server
uses much more memory after all requests than before.
"""

import asyncio
import contextlib
import dataclasses
import io
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import tyro
from PIL import Image
from tabulate import tabulate

import ssd_jax
from benchmarks.command import run
from benchmarks.speed.interleaved import ROOT
from benchmarks.speed.machine import describe_machine
from ssd_jax.errors import UserError
from ssd_jax.export.pictures import choose_pictures
from ssd_jax.inference.detector import Detector

SLOW_SECONDS = 2
"""Time that the server gives a sender, so that slow ones do not take most of the time of this command."""
MEMORY_FACTOR = 1.15
"""Largest ratio of the memory after all requests to that before. The allocator keeps some of it for later requests."""
WARM_UP = 300
"""Number of requests before the memory is measured for the first time."""
CLIENTS = (1, 8, 32)
_PATH = "/detect?score=0.1"


@dataclasses.dataclass(frozen=True)
class Options:
    model: Annotated[str, tyro.conf.Positional]
    """Run, name of a model, or exported file, as for `ssd-jax serve`."""
    requests: int = 10_000
    """Number of requests, some of them hostile."""
    hostile: float = 0.02
    """Share of the hostile requests."""
    seconds: float = 10
    """Time of each measurement of the speed."""
    seed: int = 0
    """Seed of the order of the requests."""


class Sample(NamedTuple):
    """An image file, and the detections in it as in an answer."""

    data: bytes
    expected: list[dict[str, Any]]


class Answer(NamedTuple):
    """Status and body of an answer. The status is 0 if the server closed the connection without one."""

    status: int
    body: bytes


# ---- a client ----


class Client:
    """A connection to the server, which is opened again after the server has closed it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, data: bytes, path: str = _PATH, headers: str = "") -> Answer:
        """Send data in a request, and return the answer."""
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n{headers}\r\n"
        return await self.send(head.encode() + data)

    async def send(self, data: bytes, pause: float = 0) -> Answer:
        """Send bytes, and return the answer that comes after them and a pause."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        try:
            writer.write(data)
            await asyncio.sleep(pause)
            return await asyncio.wait_for(self._read(reader), 60)
        except (ConnectionError, asyncio.IncompleteReadError):
            await self.close()
            return Answer(0, b"")

    async def close(self) -> None:
        """Close the connection."""
        if self._streams is not None:
            self._streams[1].close()
            with contextlib.suppress(ConnectionError):
                await self._streams[1].wait_closed()
            self._streams = None

    async def _read(self, reader: asyncio.StreamReader) -> Answer:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        if "content-length:" in head:
            body = await reader.readexactly(int(head.split("content-length:")[1].split()[0]))
        else:
            body = await reader.read()
        if "connection: close" in head:
            await self.close()
        return Answer(int(head.split()[1]), body)


# ---- hostile requests ----


class Hostile(NamedTuple):
    """A hostile request, and the statuses that it may get."""

    statuses: tuple[int, ...]
    send: Callable[[Client], Awaitable[Answer]]


def make_hostile(photograph: bytes) -> dict[str, Hostile]:
    """Return hostile requests by their names."""
    head = b"POST /detect HTTP/1.1\r\nHost: localhost\r\n"
    bombs = {side: _encode(Image.new("1", (side, side)), "png") for side in (6000, 10_000, 20_000)}
    form = b"--x\r\nContent-Disposition: form-data; name=f; filename=../../a.png\r\n\r\n%s\r\n"
    form_type = "Content-Type: multipart/form-data; boundary=x\r\n"
    mixed = form % photograph + form % bombs[10_000] + b"--x--\r\n"
    return {
        "bomb of 400 megapixels": Hostile((413,), lambda client: client.post(bombs[20_000])),
        "bomb of 100 megapixels": Hostile((413,), lambda client: client.post(bombs[10_000])),
        "bomb of 36 megapixels, which is allowed": Hostile((200,), lambda client: client.post(bombs[6000])),
        "cut file": Hostile((422,), lambda client: client.post(photograph[: len(photograph) // 3])),
        "text": Hostile((422,), lambda client: client.post(b"#!/bin/sh\necho hello\n" * 50)),
        "random bytes as JPEG": Hostile((422,), lambda client: client.post(b"\xff\xd8" + random.randbytes(5000))),
        "empty body": Hostile((422,), lambda client: client.post(b"")),
        "form with a bomb": Hostile((200,), lambda client: client.post(mixed, headers=form_type)),
        "form of 40 files": Hostile(
            (413,), lambda client: client.post(form % b"x" * 40 + b"--x--\r\n", headers=form_type)
        ),
        "cut form": Hostile((422,), lambda client: client.post(form % photograph, headers=form_type)),
        "slow headers": Hostile((0,), lambda client: client.send(head)),
        "slow body": Hostile((408,), lambda client: client.send(head + b"Content-Length: 99\r\n\r\nabc")),
        "headers of 60 kB": Hostile((400, 0), lambda client: client.send(head + b"X: " + b"x" * 60_000)),
        "length of 10 GB": Hostile((413,), lambda client: client.send(head + b"Content-Length: 10000000000\r\n\r\n")),
        "no HTTP": Hostile((400,), lambda client: client.send(b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n")),
        "path to a file": Hostile(
            (404,), lambda client: client.send(b"GET /../../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n")
        ),
        "encoded path": Hostile((404,), lambda client: client.post(b"x", "/%2e%2e/%2e%2e/etc/passwd%00.png")),
        "wrong method": Hostile(
            (405,), lambda client: client.send(b"DELETE /detect HTTP/1.1\r\nHost: localhost\r\n\r\n")
        ),
        "wrong parameter": Hostile((422,), lambda client: client.post(photograph, "/detect?score=9")),
        "other host": Hostile((400,), lambda client: client.send(b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n")),
        "other site": Hostile((403,), lambda client: client.post(photograph, headers="Sec-Fetch-Site: cross-site\r\n")),
        "early end": Hostile((0,), _end_early),
    }


async def _end_early(client: Client) -> Answer:
    _, writer = await asyncio.open_connection("127.0.0.1", client._port)
    writer.write(b"POST /detect HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n\r\nabc")
    await writer.drain()
    writer.close()
    return Answer(0, b"")


def _encode(image: Image.Image, kind: str) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


# ---- the server ----


@contextlib.contextmanager
def start_server(model: str, cache: Path) -> Iterator[tuple[int, float]]:
    """Start the server in a process of its own, and yield its port and the time of the start."""
    command = [sys.executable, "-m", "ssd_jax", "serve", model, "--port", "0"]
    limits = ["--head-seconds", str(SLOW_SECONDS), "--body-seconds", str(SLOW_SECONDS)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_COMPILATION_CACHE_DIR": str(cache)}
    started = time.perf_counter()
    process = subprocess.Popen([*command, *limits], env=environment, stdout=subprocess.PIPE, encoding="utf-8")
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if "http://" not in line:
            raise UserError(f"the server did not start: {' '.join(command)}")
        yield int(line.split("http://127.0.0.1:")[1].split()[0]), started
        if process.poll() is not None:
            raise UserError(f"the server ended with code {process.returncode}")
    finally:
        process.terminate()
        process.wait(30)


async def read_metrics(port: int) -> dict[str, float]:
    """Return the metrics of the server by their names."""
    client = Client(port)
    answer = await client.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await client.close()
    lines = [line.rsplit(" ", 1) for line in answer.body.decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines}


# ---- measurements ----


def make_samples(detector: Detector) -> list[Sample]:
    """Return image files, and what the detector finds in them."""
    pictures, _ = choose_pictures(detector.config, 20)
    samples = []
    with tempfile.TemporaryDirectory() as folder:
        for picture in pictures:
            file = Path(folder, "image.jpg")
            file.write_bytes(_encode(Image.fromarray(picture), "jpeg"))
            found = detector(file, score_threshold=0.1)
            rows = [
                {"class_name": d.name, "class_index": label - 1, "score": d.score, "box": list(d.box)}
                for d, label in zip(found, found.labels.tolist(), strict=True)
            ]
            samples.append(Sample(file.read_bytes(), rows))
    return samples


def is_good(answer: Answer, sample: Sample) -> bool:
    """Return whether an answer has exactly the expected detections."""
    return answer.status == 200 and json.loads(answer.body)["detections"] == sample.expected


async def measure_speed(port: int, samples: Sequence[Sample], clients: int, seconds: float) -> list[float]:
    """Return the seconds that each request took, with a number of clients that send one request after the other.

    Raises:
        UserError: If an answer is not as expected.
    """
    end = time.perf_counter() + seconds
    times: list[float] = []

    async def work(number: int) -> None:
        async with open_client(port) as client:
            for position in range(number, sys.maxsize):
                started = time.perf_counter()
                if started > end:
                    return
                sample = samples[position % len(samples)]
                answer = await client.post(sample.data)
                times.append(time.perf_counter() - started)
                if not is_good(answer, sample):
                    raise UserError(f"an answer differs: status {answer.status}, {answer.body[:200]!r}")

    await asyncio.gather(*map(work, range(clients)))
    return times


@contextlib.asynccontextmanager
async def open_client(port: int) -> AsyncIterator[Client]:
    client = Client(port)
    try:
        yield client
    finally:
        await client.close()


async def send_mixed(port: int, samples: Sequence[Sample], options: Options) -> Counter[tuple[str, int, bool]]:
    """Send good and hostile requests from many clients. Return how many of each kind got which status, and whether the
    answer was as it should be."""
    chance = random.Random(options.seed)
    hostile = make_hostile(samples[0].data)
    count = round(options.requests * options.hostile)
    kinds = [list(hostile)[i % len(hostile)] for i in range(count)] + [""] * (options.requests - count)
    chance.shuffle(kinds)
    remaining = iter(enumerate(kinds))
    outcomes: Counter[tuple[str, int, bool]] = Counter()

    async def work() -> None:
        async with open_client(port) as client:
            for position, kind in remaining:
                if kind:
                    async with open_client(port) as other:
                        answer = await hostile[kind].send(other)
                    outcomes[kind, answer.status, answer.status in hostile[kind].statuses] += 1
                else:
                    sample = samples[position % len(samples)]
                    answer = await client.post(sample.data)
                    outcomes["good image", answer.status, is_good(answer, sample)] += 1

    await asyncio.gather(*(work() for _ in range(CLIENTS[-1])))
    return outcomes


async def wait_for_answer(port: int, sample: Sample, started: float) -> float:
    """Return the seconds from the start of the server to the first answer."""
    async with open_client(port) as client:
        answer = await client.post(sample.data)
    if not is_good(answer, sample):
        raise UserError(f"the first answer differs: status {answer.status}, {answer.body[:200]!r}")
    return time.perf_counter() - started


async def measure(options: Options, port: int, samples: Sequence[Sample]) -> bool:
    """Print all measurements of a server that runs, and return whether everything was as it should be."""
    rows = []
    for clients in CLIENTS:
        times = await measure_speed(port, samples, clients, options.seconds)
        percentiles = np.percentile(times, [50, 95, 99]) * 1000
        rows.append([clients, len(times), len(times) / options.seconds, *percentiles])
    header = ["clients", "answers", "answers/s", "p50 ms", "p95 ms", "p99 ms"]
    print(tabulate(rows, header, tablefmt="github", floatfmt=".1f"), "\n")
    # At first, the memory grows with the largest image that is allowed: the allocator keeps it for later ones.
    await send_mixed(port, samples, dataclasses.replace(options, requests=WARM_UP, hostile=0.2))
    before = await read_metrics(port)
    started = time.perf_counter()
    outcomes = await send_mixed(port, samples, options)
    seconds = time.perf_counter() - started
    await asyncio.sleep(SLOW_SECONDS + 1)
    after = await read_metrics(port)
    lines = [[kind, status, count, "yes" if good else "NO"] for (kind, status, good), count in sorted(outcomes.items())]
    print(tabulate(lines, ["request", "status", "count", "as it should be"], tablefmt="github"), "\n")
    memory = [metrics["process_resident_memory_bytes"] for metrics in (before, after)]
    files = [metrics["process_open_fds"] for metrics in (before, after)]
    print(f"{options.requests} requests in {seconds:.1f} s. Status 0: closed without an answer.")
    print(f"Memory of the server: {memory[0] / 1e6:.0f} MB before, {memory[1] / 1e6:.0f} MB after.")
    print(f"Open files of the server: {files[0]:.0f} before, {files[1]:.0f} after.")
    is_idle = after["ssd_jax_waiting_images"] == 0 and files[1] <= files[0]
    return all(good for _, _, good in outcomes) and is_idle and memory[1] <= MEMORY_FACTOR * memory[0]


def main(argv: Sequence[str]) -> int:
    options = tyro.cli(Options, args=list(argv), prog="python -m benchmarks.serving", description=__doc__)
    print(describe_machine("uvicorn", "starlette"))
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder)
        samples = make_samples(ssd_jax.load(options.model))
        print(f"{len(samples)} images of {np.mean([len(s.data) for s in samples]) / 1000:.1f} kB on average\n")
        for state in ("an empty cache", "a filled cache"):
            with start_server(options.model, cache) as (port, started):
                seconds = asyncio.run(wait_for_answer(port, samples[0], started))
                print(f"From the start of the command to the first answer, with {state}: {seconds:.2f} s")
                if state == "a filled cache":
                    print()
                    return 0 if asyncio.run(measure(options, port, samples)) else 1
    raise AssertionError


if __name__ == "__main__":
    run(main)
