"""Checkpoints of a run: the latest two and the best, through Orbax.

Each holds ``params`` (with their moving average if there is one), ``training`` (what only going on
needs), and as metadata the config and the position of the data stream. A checkpoint is there whole or
not at all; ``checksums.json`` in it tells whether it still is what was written.
"""

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
from orbax.checkpoint import v1 as ocp

from ssd_jax.data.class_names import describe_class_difference
from ssd_jax.errors import UserError
from ssd_jax.files import user_errors_on_write, write_text
from ssd_jax.runtime import distributed

logger = logging.getLogger(__name__)

BEST_METRIC = "voc_map_area"
_CHECKSUMS = "checksums.json"


class CorruptCheckpointError(UserError):
    """A checkpoint that can't be read, or is not what was written.

    what: says so, and names it.
    """

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}. Move it away, and the one before it is taken, if there is one")
        self.what = what


class Saved(NamedTuple):
    """A checkpoint as read back."""

    step: int
    trees: dict[str, Any]
    metadata: dict[str, Any]


def _policy() -> Any:
    policies = ocp.training.preservation_policies
    best = policies.BestN(
        get_metric_fn=lambda metrics: metrics[BEST_METRIC], n=1, keep_checkpoints_without_metrics=False
    )
    # Their union: orbax's older max_to_keep with best_fn deletes the latest checkpoint.
    return policies.AnyPreservationPolicy([policies.LatestN(2), best])


class Checkpoints:
    """The folder ``checkpoints`` of a run. A context manager; use from one thread, and from all processes.

    for_writing: clears away what a killed run left half written. Not for readers, who would take
        it from under a run that is just saving.
    """

    def __init__(self, folder: Path, *, for_writing: bool = False) -> None:
        self.folder = folder.absolute()
        self._writing: tuple[int, Any] | None = None  # step, and orbax's promise
        self._failed = False
        for name in ("absl", "asyncio"):
            logging.getLogger(name).addFilter(_from_elsewhere)
        self._checkpointer = ocp.training.Checkpointer(
            self.folder, preservation_policy=_policy(), cleanup_tmp_directories=for_writing
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            # What was begun is ended, whatever happened; of two errors the first one is told.
            with suppress(Exception) if kind else nullcontext():
                self.wait_until_finished()
        finally:
            # Closing raises the error of a failed save once more.
            with suppress(Exception) if self._failed else nullcontext():
                self._checkpointer.close()

    @property
    def steps(self) -> Sequence[int]:
        return [checkpoint.step for checkpoint in self._checkpointer.checkpoints]

    @property
    def latest(self) -> int | None:
        return max(self.steps, default=None)

    @property
    def best(self) -> int | None:
        """Step with the highest val mAP (area); None before the first evaluation."""
        measured = [c for c in self._checkpointer.checkpoints if c.metrics]
        return max(measured, key=lambda c: c.metrics[BEST_METRIC]).step if measured else None

    def save(
        self, step: int, trees: dict[str, Any], metadata: dict[str, Any], best_metric: float | None = None
    ) -> None:
        """Returns when the arrays are copied; they are written while the caller goes on.

        Raises UserError if this one, or the one before it, can't be written; earlier ones stay.
        """
        self.wait_until_finished()
        with self._errors_told(step):
            promise = self._checkpointer.save_checkpointables_async(
                step,
                trees,
                force=True,
                metrics=None if best_metric is None else {BEST_METRIC: best_metric},
                custom_metadata=metadata,
            )
        self._writing = step, promise

    def raise_if_failed(self) -> None:
        """Raises the UserError of a checkpoint that could not be written meanwhile, without waiting for one."""
        if self._writing is not None and not self._checkpointer.is_saving_in_progress():
            self.wait_until_finished()

    def wait_until_finished(self) -> None:
        """Blocks until all is on the disk. Raises UserError if it can't be written."""
        if self._writing is None:
            return
        (step, promise), self._writing = self._writing, None
        with self._errors_told(step):
            promise.result()
        if distributed.is_primary():
            folder = self.folder / str(step)
            write_text(folder / _CHECKSUMS, json.dumps(_checksums(folder), indent=1))

    @contextmanager
    def _errors_told(self, step: int) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # orbax wraps the writer's error in types of its own
            self._failed = True
            reason = _disk_reason(error)
            if reason is None:
                raise
            raise UserError(
                f"{self.folder}: the checkpoint of step {step} could not be written ({reason}). Those before it are "
                "kept. Free some space and give the same command again; it goes on from the last one"
            ) from error

    def resume(self, like: dict[str, Any], class_names: Sequence[str]) -> Saved | None:
        """The latest checkpoint that is whole, as `restore` gives it; None where there is none at all.

        Later, corrupt checkpoints are moved beside the folder, with a warning. Raises UserError, and leaves them
        where they are, if none is intact.
        """
        damaged: dict[int, CorruptCheckpointError] = {}
        for step in sorted(self.steps, reverse=True):
            try:
                saved = self.restore(step, like, class_names)
            except CorruptCheckpointError as error:
                damaged[step] = error
                continue
            for other, damage in damaged.items():
                aside = self.folder.with_name("damaged_checkpoints") / str(other)
                logger.warning("%s. It is moved to %s, and the one of step %d is taken", damage.what, aside, step)
                distributed.run_on_primary(partial(_move, self.folder / str(other), aside))
            if damaged:
                self._checkpointer.reload()
            return saved
        if damaged:
            told = "\n  ".join(damage.what for damage in damaged.values())
            raise UserError(f"no checkpoint to go on from, begin again in another --workdir:\n  {told}")
        return None

    def parameter_names(self, step: int, module: str) -> list[str]:
        """What a checkpoint's parameters hold in a module."""
        with _reading(self.folder / str(step)):
            return list(self._checkpointer.checkpointables_metadata(step).metadata["params"][module])

    def restore(self, step: int, like: dict[str, Any], class_names: Sequence[str]) -> Saved:
        """The trees named in ``like``, whose leaves (arrays, or shapes with shardings) say where to put them.

        Raises UserError if they or the classes do not fit, naming the parameters, and CorruptCheckpointError.
        """
        file = self.folder / str(step)
        distributed.run_on_primary(lambda: verify_checksums(file), CorruptCheckpointError)
        with _reading(file):
            metadata = self._checkpointer.metadata(step).custom_metadata
            stored = self._checkpointer.checkpointables_metadata(step).metadata
            if not stored.get("params"):
                raise ValueError("its parameters are missing")
            check_same_classes(file, metadata["config"]["model"]["class_names"], class_names)
            check_same_parameters(file, stored["params"], like["params"])
            trees = self._checkpointer.load_checkpointables(step, jax.tree.map(_abstract, like))
        return Saved(step, trees, metadata)


def _from_elsewhere(record: logging.LogRecord) -> bool:
    """Filters out what orbax logs: the traceback of a failed write or read, which it raises too, once for each of
    its threads, in a thousand lines, some of them after it was raised."""
    return "orbax" not in record.pathname and "tensorstore" not in record.getMessage()


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # of orbax, tensorstore, json, ...: whatever a missing or cut file leads to
        what = f"{file}: this checkpoint can't be read, it is damaged or of another version ({_first_line(error)})"
        raise CorruptCheckpointError(what) from error


def verify_checksums(folder: Path) -> None:
    """Raise CorruptCheckpointError if a file is missing or changed: Orbax does not detect most flipped bits.

    A run that was killed before it wrote the checksums has none, which is no fault.
    """
    file = folder / _CHECKSUMS
    with _reading(file):
        written = json.loads(file.read_text()) if file.exists() else {}
        changed = [name for name, checksum in _checksums(folder).items() if written.get(name, checksum) != checksum]
    changed += sorted(name for name in written if not (folder / name).exists())
    if changed:
        raise CorruptCheckpointError(f"{folder}: this checkpoint is damaged, {changed[0]} is not what was written")


def _checksums(folder: Path) -> dict[str, str]:
    """Of each file below the folder, by its path in it."""
    sums = {}
    for file in sorted(file for file in folder.rglob("*") if file.is_file() and file.name != _CHECKSUMS):
        with file.open("rb") as stream:
            sums[file.relative_to(folder).as_posix()] = hashlib.file_digest(stream, "sha256").hexdigest()
    return sums


def _move(folder: Path, aside: Path) -> None:
    with user_errors_on_write(aside):
        aside.parent.mkdir(exist_ok=True)
        if aside.exists():  # of an earlier damage
            shutil.rmtree(aside)
        folder.rename(aside)


def check_same_classes(file: Path, stored: Sequence[str], expected: Sequence[str]) -> None:
    """Raises UserError if the checkpoint's classes are others than the run's, or in another order."""
    difference = describe_class_difference(stored, expected, new_place="config.json")
    if difference:
        raise UserError(f"{file}: a checkpoint of other classes than {file.parents[1] / 'config.json'}:\n{difference}")


def check_same_parameters(file: Path, stored: Any, expected: Any) -> None:
    """Raises UserError listing every parameter that is missing, extra or of another shape."""
    have, want = _shapes(stored), _shapes(expected)
    lines = [f"  {name}: missing, {want[name]} expected" for name in want.keys() - have.keys()]
    lines += [f"  {name}: {have[name]}, not in this model" for name in have.keys() - want.keys()]
    lines += [f"  {n}: {have[n]}, {want[n]} expected" for n in want.keys() & have.keys() if want[n] != have[n]]
    if lines:
        header = f"{file}: a checkpoint of another architecture or number of classes:"
        more = [f"  and {len(lines) - 20} more"] if len(lines) > 20 else []
        raise UserError("\n".join([header, *sorted(lines)[:20], *more]))


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda leaf: hasattr(leaf, "shape"))
    return {"/".join(str(key.key) for key in path): tuple(leaf.shape) for path, leaf in leaves}


def _abstract(leaf: jax.Array | jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)


def _disk_reason(error: BaseException | None) -> str | None:
    """What the system says of a failed write, by the error or one that led to it; None where it is no such error."""
    while error is not None:
        if isinstance(error, OSError):
            return error.strerror or str(error)
        code = re.search(r"os_error_code='(\d+)'", str(error))  # tensorstore's, in a ValueError
        if code:
            return os.strerror(int(code[1]))
        error = error.__cause__ or error.__context__
    return None


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
