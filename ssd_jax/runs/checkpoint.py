"""Saving and restoring the checkpoints of a run with Orbax. The latest two checkpoints and the best one are kept.

A checkpoint has two trees of arrays: ``params`` (the moving average of the parameters, if there is one) and
``training`` (arrays that are only needed to resume training). Its metadata are the config and the position in the
data. Orbax writes a checkpoint to a temporary folder and renames that folder at the end, so that an incomplete
checkpoint never has the name of a complete one.
"""

import json
import logging
import math
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from orbax.checkpoint import v1 as ocp

from ssd_jax.data.class_names import describe_class_difference
from ssd_jax.errors import UserError, convert_errors
from ssd_jax.runs.checkpoint_integrity import (
    CorruptCheckpointError,
    convert_corruption_errors,
    move_aside,
    restore_first_intact,
    restore_newest_intact,
    verify_checksums,
    write_checksums,
)
from ssd_jax.runs.log import BEST_METRIC
from ssd_jax.runs.plain_path import plain_path
from ssd_jax.runs.run_folder import list_checkpoint_steps
from ssd_jax.runtime import distributed

T = TypeVar("T")
logger = logging.getLogger(__name__)

_MAX_LISTED = 20


class RestoredCheckpoint(NamedTuple):
    """Step, trees of arrays and metadata of a checkpoint that was restored."""

    step: int
    trees: dict[str, Any]
    """Trees of arrays by name: ``params`` and, if requested, ``training``."""
    metadata: dict[str, Any]


class Checkpoints:
    """Context manager that saves and restores the checkpoints in the folder ``checkpoints`` of a run.

    Use it from one thread only. In a run of several processes, every process has to use it. At its end, the ``with``
    block waits for a checkpoint that is still being written. Within the block, Orbax's log records are dropped: when a
    read or write fails, Orbax raises an exception and also logs its traceback once for each of its threads.

    Args:
        folder: The folder ``checkpoints``. The first save creates it.
        for_writing: Whether to delete incomplete checkpoints, which a killed run leaves. If False, they are kept,
            because a training process may be writing one of them.
    """

    def __init__(self, folder: Path, *, for_writing: bool = False) -> None:
        self.folder = folder.absolute()
        self._for_writing = for_writing
        self._plain_folder = self.folder  # the same folder, under a path that Orbax takes literally
        self._writer: ocp.training.Checkpointer | None = None  # created by the first save
        self._pending: tuple[int, Any] | None = None  # step and Orbax's future of a save that is not finished
        self._failed = False
        self._contexts = ExitStack()

    def __enter__(self) -> "Checkpoints":
        self._contexts.enter_context(_drop_orbax_logs())
        self._plain_folder = self._contexts.enter_context(plain_path(self.folder))
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._contexts:
            if self._writer is None:
                return
            try:
                # An exception of the block must not be replaced by an error of the last save.
                with suppress(Exception) if kind else nullcontext():
                    self.wait_until_finished()
            finally:
                # After a failed save, close() raises the same error again.
                with suppress(Exception) if self._failed else nullcontext():
                    self._writer.close()
                if self._failed:
                    _wait_for_orbax_threads()

    @property
    def steps(self) -> list[int]:
        """Steps of all checkpoints, in ascending order."""
        return list_checkpoint_steps(self.folder)

    @property
    def latest(self) -> int | None:
        """Step of the latest checkpoint, or None if there is no checkpoint."""
        return max(self.steps, default=None)

    @property
    def best(self) -> int | None:
        """Step of the checkpoint with the highest mAP (area) on the val split, or None if none has an mAP."""
        return next(iter(self._steps_by_metric()), None)

    def _steps_by_metric(self) -> list[int]:
        """Return the steps of the evaluated checkpoints, in descending order of their mAP."""
        metrics: dict[int, float] = {}
        for step in self.steps:
            with suppress(CorruptCheckpointError):
                metric = self._read_metric(step)
                if metric is not None:
                    metrics[step] = metric
        return sorted(metrics, key=metrics.__getitem__, reverse=True)

    def _read_metric(self, step: int) -> float | None:
        """Return the mAP (area) of a checkpoint, or None if there was no evaluation after its step.

        Orbax itself fails on the whole folder if the file with the mAP of one checkpoint is corrupt.

        Raises:
            CorruptCheckpointError: If the file with the mAP cannot be read, or does not have a finite number.
        """
        file = self.folder / str(step) / "metrics" / "metrics"
        if not file.parent.exists():
            return None
        with convert_corruption_errors(self.folder / str(step)):
            metric = json.loads(file.read_bytes())[BEST_METRIC]
            if not isinstance(metric, int | float) or not math.isfinite(metric):
                raise ValueError(f"its metric is {metric!r}")
            return float(metric)

    def save(
        self, step: int, trees: dict[str, Any], metadata: dict[str, Any], best_metric: float | None = None
    ) -> None:
        """Save a checkpoint in the background, after waiting until the previous one is written.

        The arrays are copied before this method returns, so that they may be changed afterwards.

        Args:
            step: Number of training steps after which the arrays have these values.
            trees: Trees of arrays by name.
            metadata: Values that can be stored as JSON.
            best_metric: mAP (area) on the val split after this step, by which the best checkpoint is chosen. None if
                there was no evaluation after this step.

        Raises:
            UserError: If this checkpoint or the previous one cannot be written. Earlier checkpoints are kept.
        """
        self.wait_until_finished()
        is_first = not self.steps
        with self._convert_write_errors(step):
            if self._writer is None:
                self._writer = ocp.training.Checkpointer(
                    self._plain_folder,
                    preservation_policy=_make_preservation_policy(),
                    cleanup_tmp_directories=self._for_writing,
                )
            future = self._writer.save_checkpointables_async(
                step,
                trees,
                force=True,
                metrics=None if best_metric is None else {BEST_METRIC: best_metric},
                custom_metadata=metadata,
            )
        self._pending = step, future
        if is_first:
            self._read_back(step, trees["params"], metadata)

    def _read_back(self, step: int, params: Any, metadata: dict[str, Any]) -> None:
        """Wait until a checkpoint is written, and check that it can be read and has the parameters that were saved."""
        self.wait_until_finished()
        params = jax.tree.map(lambda leaf: leaf if isinstance(leaf, jax.Array) else jnp.asarray(leaf), params)
        try:
            restored = self.restore(step, {"params": params}, metadata["config"]["model"]["class_names"])
            if not all(jax.tree.leaves(jax.tree.map(_have_same_bits, restored.trees["params"], params))):
                raise CorruptCheckpointError("its parameters differ from those in memory")
        except CorruptCheckpointError as error:
            raise UserError(
                f"{self.folder / str(step)}: the first checkpoint was written, but it cannot be read back "
                f"({error.reason}). A longer training would be lost. Name another --workdir, on another disk"
            ) from error

    def complete_if_written(self) -> None:
        """Complete the last checkpoint if its data is written, and raise a UserError if writing has failed.

        This does not wait for a write in progress.
        """
        if self._pending is not None and self._writer is not None and not self._writer.is_saving_in_progress():
            self.wait_until_finished()

    def wait_until_finished(self) -> None:
        """Wait until the last checkpoint is written to disk, and write its checksums.

        Raises:
            UserError: If the checkpoint or its checksums cannot be written.
        """
        if self._pending is None:
            return
        (step, future), self._pending = self._pending, None
        with self._convert_write_errors(step):
            future.result()
        if distributed.is_primary():
            write_checksums(self.folder / str(step))

    @contextmanager
    def _convert_write_errors(self, step: int) -> Iterator[None]:
        problem = f"{self.folder}: the checkpoint of step {step} could not be written"
        advice = (
            "Earlier checkpoints are kept. Free some space and give the same command again to resume from the latest"
        )
        try:
            with convert_errors(problem, advice, reason=_find_system_reason):
                yield
        except Exception:
            self._failed = True
            raise

    def resume(self, target: dict[str, Any], class_names: Sequence[str]) -> RestoredCheckpoint | None:
        """Restore the newest intact checkpoint. Newer checkpoints, which are corrupt, are moved to another folder.

        A warning is logged for each corrupt checkpoint.

        Args:
            target: Trees to restore, as for `restore`.
            class_names: Class names in the config of the run.

        Returns:
            The checkpoint, or None if the folder has no checkpoint.

        Raises:
            UserError: If parameters or classes of the checkpoint differ from those of the run, or if all checkpoints
                are corrupt.
        """
        restored = restore_newest_intact(self.folder, self.steps, lambda step: self.restore(step, target, class_names))
        if restored is not None:
            self._move_checkpoints_without_readable_metric()
        return restored

    def _move_checkpoints_without_readable_metric(self) -> None:
        """Move the checkpoints whose mAP cannot be read to the folder of corrupt checkpoints, with a warning for each.

        Orbax reads the mAP of each checkpoint when it chooses the checkpoints to keep.
        """
        corrupt = {}
        for step in self.steps:
            try:
                self._read_metric(step)
            except CorruptCheckpointError as error:
                corrupt[step] = error
        move_aside(self.folder, corrupt)

    def restore_preferred(self, checkpoint: str, restore: Callable[[int], T]) -> T | None:
        """Restore the best or the latest checkpoint. If it is corrupt, restore another one and log a warning.

        No file is moved or changed.

        Args:
            checkpoint: "best" for the checkpoint with the highest mAP, then the one with the next lower mAP, and so on;
                the latest one if none has an mAP. "last" for the latest checkpoint, then the one before it.
            restore: Function that returns the checkpoint of a step, or raises CorruptCheckpointError if it is corrupt.

        Returns:
            The result of ``restore``, or None if there is no checkpoint.

        Raises:
            UserError: If all checkpoints are corrupt.
        """
        newest_first = self.steps[::-1]
        best_first = self._steps_by_metric() if checkpoint == "best" else []
        return restore_first_intact(dict.fromkeys([*best_first, *newest_first]), restore)

    def parameter_names(self, step: int, module: str) -> list[str]:
        """Return the names of the layers that a checkpoint has in a module, such as ``vgg``.

        Args:
            step: Step of the checkpoint.
            module: Name at the top level of the parameters.

        Raises:
            CorruptCheckpointError: If the checkpoint cannot be read.
        """
        with convert_corruption_errors(self.folder / str(step)):
            return list(ocp.checkpointables_metadata(self._plain_folder / str(step)).metadata["params"][module])

    def restore(self, step: int, target: dict[str, Any], class_names: Sequence[str]) -> RestoredCheckpoint:
        """Restore trees of arrays from the checkpoint of a step.

        Args:
            step: Step of the checkpoint.
            target: Trees by name, with the same structure as the saved trees. Their leaves are arrays or
                ``jax.ShapeDtypeStruct``; the restored arrays have the same dtypes and shardings. A tree that is not in
                ``target`` is not read.
            class_names: Class names in the config of the run.

        Raises:
            UserError: If the parameters or the classes differ from those in ``target`` or ``class_names``. The message
                lists the differences.
            CorruptCheckpointError: If the checkpoint is corrupt.
        """
        path = self.folder / str(step)
        distributed.run_on_primary(lambda: verify_checksums(path), CorruptCheckpointError)
        self._read_metric(step)
        with convert_corruption_errors(path):
            plain_path = self._plain_folder / str(step)
            stored = ocp.checkpointables_metadata(plain_path)
            metadata: Any = stored.custom_metadata
            if not stored.metadata.get("params"):
                raise ValueError("its parameters are missing")
            check_same_classes(path, metadata["config"]["model"]["class_names"], class_names)
            check_same_parameters(path, stored.metadata["params"], target["params"])
            trees = ocp.load_checkpointables(plain_path, jax.tree.map(_to_abstract_array, target))
        return RestoredCheckpoint(step, trees, metadata)


def _make_preservation_policy() -> Any:
    """Return the Orbax policy that keeps the latest two checkpoints and the best one."""
    policies = ocp.training.preservation_policies
    best = policies.BestN(
        get_metric_fn=lambda metrics: metrics[BEST_METRIC], n=1, keep_checkpoints_without_metrics=False
    )
    # The two policies are combined here, because Orbax's older options max_to_keep and best_fn, given together, delete
    # the latest checkpoint.
    return policies.AnyPreservationPolicy([policies.LatestN(2), best])


@contextmanager
def _drop_orbax_logs() -> Iterator[None]:
    """Drop the log records of Orbax and TensorStore during the ``with`` block."""

    def is_of_another_library(record: logging.LogRecord) -> bool:
        return "orbax" not in record.pathname and "tensorstore" not in record.getMessage()

    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    for logger in loggers:
        logger.addFilter(is_of_another_library)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(is_of_another_library)


def _wait_for_orbax_threads(seconds: float = 10) -> None:
    """Wait up to ``seconds`` until the threads of a failed save, which also log its exception, have ended."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        threads = [thread for thread in threading.enumerate() if type(thread).__module__.startswith("orbax.")]
        if not threads:
            return
        threads[0].join(end - time.monotonic())


def check_same_classes(path: Path, stored: Sequence[str], expected: Sequence[str]) -> None:
    """Raise a UserError if the classes of a checkpoint are not those of its run, or are in another order.

    Raises:
        UserError: If the class names differ. The message lists the differences.
    """
    difference = describe_class_difference(stored, expected, new_place="config.json")
    if difference:
        raise UserError(
            f"{path}: the classes of this checkpoint differ from {path.parents[1] / 'config.json'}:",
            *difference.splitlines(),
        )


def check_same_parameters(path: Path, stored: Any, expected: Any) -> None:
    """Raise a UserError if the parameters of a checkpoint do not have the expected names and shapes.

    Raises:
        UserError: If names or shapes differ. The message lists at most 20 parameters that are missing, not expected, or
            of another shape.
    """
    have, want = _list_shapes(stored), _list_shapes(expected)
    lines = [f"  {name}: missing, {want[name]} expected" for name in want.keys() - have.keys()]
    lines += [f"  {name}: {have[name]}, not in this model" for name in have.keys() - want.keys()]
    lines += [f"  {n}: {have[n]}, {want[n]} expected" for n in want.keys() & have.keys() if want[n] != have[n]]
    if lines:
        header = f"{path}: this checkpoint has another architecture or number of classes:"
        more = [f"  and {len(lines) - _MAX_LISTED} more"] if len(lines) > _MAX_LISTED else []
        raise UserError(header, *sorted(lines)[:_MAX_LISTED], *more)


def _list_shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda leaf: hasattr(leaf, "shape"))
    return {"/".join(str(key.key) for key in path): tuple(leaf.shape) for path, leaf in leaves}


def _to_abstract_array(leaf: jax.Array | jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)


def _have_same_bits(one: jax.Array, other: jax.Array) -> bool:
    """Return whether the parts of two arrays on the devices of this process have the same bits."""
    pairs = zip(one.addressable_shards, other.addressable_shards, strict=True)
    return all(np.asarray(a.data).tobytes() == np.asarray(b.data).tobytes() for a, b in pairs)


def _find_system_reason(error: BaseException | None) -> str | None:
    """Return the operating system's reason for a failed write, or None if the operating system reported no error.

    The reason is searched for in the exception and its causes, since Orbax wraps the errors of its writer threads in
    other exceptions.
    """
    while error is not None:
        if isinstance(error, OSError):
            return error.strerror or str(error)
        code = re.search(r"os_error_code='(\d+)'", str(error))  # in the text of a ValueError of TensorStore
        if code:
            return os.strerror(int(code[1]))
        error = error.__cause__ or error.__context__
    return None
