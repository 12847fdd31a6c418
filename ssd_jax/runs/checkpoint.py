"""Checkpoints of a run, saved and restored with Orbax: the latest two and the best.

A checkpoint has the arrays ``params`` (the moving average, if there is one) and ``training`` (what only resuming
needs), and as metadata the config and the position in the data. Orbax writes it to a temporary folder and renames that
at the end, so that a checkpoint is either complete or not there.
"""

import logging
import os
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, NamedTuple

import jax
from orbax.checkpoint import v1 as ocp

from ssd_jax.data.class_names import describe_class_difference
from ssd_jax.errors import UserError, user_errors
from ssd_jax.runs.checkpoint_integrity import (
    CorruptCheckpointError,
    corrupt_checkpoint_errors,
    restore_newest_intact,
    verify_checksums,
    write_checksums,
)
from ssd_jax.runtime import distributed

BEST_METRIC = "voc_map_area"
_MAX_LISTED = 20


class RestoredCheckpoint(NamedTuple):
    """Contents of a checkpoint."""

    step: int
    trees: dict[str, Any]
    """Trees of arrays by name: ``params`` and, if requested, ``training``."""
    metadata: dict[str, Any]


class Checkpoints:
    """The folder ``checkpoints`` of a run, as a context manager.

    Use it from one thread, and in a run of several processes from all of them. Leaving the ``with`` block waits for
    checkpoints that are still being written. Within the block, Orbax's log records are dropped: when a read or write
    fails, Orbax logs the traceback of the exception that it also raises, once for each of its threads.

    Args:
        folder: The folder; it is created by the first save.
        for_writing: Whether to delete checkpoints that a killed run left incomplete. Readers leave them: a run may
            just be writing one.
    """

    def __init__(self, folder: Path, *, for_writing: bool = False) -> None:
        self.folder = folder.absolute()
        self._pending: tuple[int, Any] | None = None  # step and Orbax's future
        self._failed = False
        self._contexts = ExitStack()
        self._checkpointer = ocp.training.Checkpointer(
            self.folder, preservation_policy=_preservation_policy(), cleanup_tmp_directories=for_writing
        )

    def __enter__(self) -> "Checkpoints":
        self._contexts.enter_context(_without_orbax_logs())
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._contexts:
            try:
                # An exception that is already propagating is the one to report.
                with suppress(Exception) if kind else nullcontext():
                    self.wait_until_finished()
            finally:
                # After a failed save, close() raises its error again.
                with suppress(Exception) if self._failed else nullcontext():
                    self._checkpointer.close()
                if self._failed:
                    _wait_for_orbax_threads()

    @property
    def steps(self) -> Sequence[int]:
        """Steps of all checkpoints."""
        return [checkpoint.step for checkpoint in self._checkpointer.checkpoints]

    @property
    def latest(self) -> int | None:
        """Step of the latest checkpoint; None if there is none."""
        return max(self.steps, default=None)

    @property
    def best(self) -> int | None:
        """Step of the checkpoint with the highest val mAP (area metric); None before the first evaluation."""
        evaluated = [c for c in self._checkpointer.checkpoints if c.metrics]
        return max(evaluated, key=lambda c: c.metrics[BEST_METRIC]).step if evaluated else None

    def save(
        self, step: int, trees: dict[str, Any], metadata: dict[str, Any], best_metric: float | None = None
    ) -> None:
        """Save a checkpoint. Returns when the arrays are copied; they are written in the background.

        Waits first until the checkpoint before it is written.

        Args:
            step: Step after which this state was reached.
            trees: Trees of arrays by name.
            metadata: Values that JSON can hold.
            best_metric: Val mAP at this step, by which the best checkpoint is chosen; None if it was not evaluated.

        Raises:
            UserError: If this checkpoint or the one before it cannot be written. Earlier ones are kept.
        """
        self.wait_until_finished()
        with self._write_errors(step):
            future = self._checkpointer.save_checkpointables_async(
                step,
                trees,
                force=True,
                metrics=None if best_metric is None else {BEST_METRIC: best_metric},
                custom_metadata=metadata,
            )
        self._pending = step, future

    def raise_if_failed(self) -> None:
        """Raise the UserError of a checkpoint that could not be written in the background. Does not wait."""
        if self._pending is not None and not self._checkpointer.is_saving_in_progress():
            self.wait_until_finished()

    def wait_until_finished(self) -> None:
        """Wait until the last checkpoint is on the disk, and write its checksums.

        Raises:
            UserError: If it cannot be written.
        """
        if self._pending is None:
            return
        (step, future), self._pending = self._pending, None
        with self._write_errors(step):
            future.result()
        if distributed.is_primary():
            write_checksums(self.folder / str(step))

    @contextmanager
    def _write_errors(self, step: int) -> Iterator[None]:
        problem = f"{self.folder}: the checkpoint of step {step} could not be written"
        advice = (
            "Earlier checkpoints are kept. Free some space and give the same command again to resume from the latest"
        )
        try:
            with user_errors(problem, advice, reason=_system_reason):
                yield
        except Exception:
            self._failed = True
            raise

    def resume(self, target: dict[str, Any], class_names: Sequence[str]) -> RestoredCheckpoint | None:
        """Restore the newest intact checkpoint, and move newer, corrupt ones out of the folder, with a warning.

        Args:
            target: As for `restore`.
            class_names: As for `restore`.

        Returns:
            The checkpoint; None if there are none.

        Raises:
            UserError: If the checkpoint does not fit, or if all are corrupt.
        """
        restored = restore_newest_intact(self.folder, self.steps, lambda step: self.restore(step, target, class_names))
        if restored is not None and restored.step != self.latest:  # newer ones were moved
            self._checkpointer.reload()
        return restored

    def parameter_names(self, step: int, module: str) -> list[str]:
        """Return the names of a module's direct children in the parameters of a checkpoint.

        Raises:
            CorruptCheckpointError: If the checkpoint cannot be read.
        """
        with corrupt_checkpoint_errors(self.folder / str(step)):
            return list(self._checkpointer.checkpointables_metadata(step).metadata["params"][module])

    def restore(self, step: int, target: dict[str, Any], class_names: Sequence[str]) -> RestoredCheckpoint:
        """Restore trees of arrays from the checkpoint of a step.

        Args:
            step: Step of the checkpoint.
            target: Trees by name, as saved. Their leaves are arrays, or shapes with dtype and sharding; the restored
                arrays get the same dtype and sharding. Trees that are left out are not read.
            class_names: Class names of the run's config.

        Raises:
            UserError: If the parameters or classes differ from those of the run; the message lists the differences.
            CorruptCheckpointError: If the checkpoint is corrupt.
        """
        path = self.folder / str(step)
        distributed.run_on_primary(lambda: verify_checksums(path), CorruptCheckpointError)
        with corrupt_checkpoint_errors(path):
            metadata = self._checkpointer.metadata(step).custom_metadata
            stored = self._checkpointer.checkpointables_metadata(step).metadata
            if not stored.get("params"):
                raise ValueError("its parameters are missing")
            check_same_classes(path, metadata["config"]["model"]["class_names"], class_names)
            check_same_parameters(path, stored["params"], target["params"])
            trees = self._checkpointer.load_checkpointables(step, jax.tree.map(_abstract_array, target))
        return RestoredCheckpoint(step, trees, metadata)


def _preservation_policy() -> Any:
    """Return the policy that keeps the latest two checkpoints and the best one."""
    policies = ocp.training.preservation_policies
    best = policies.BestN(
        get_metric_fn=lambda metrics: metrics[BEST_METRIC], n=1, keep_checkpoints_without_metrics=False
    )
    # A union, because Orbax's older options max_to_keep and best_fn together delete the latest checkpoint.
    return policies.AnyPreservationPolicy([policies.LatestN(2), best])


@contextmanager
def _without_orbax_logs() -> Iterator[None]:
    """Drop log records of Orbax and TensorStore in the ``with`` block."""

    def keep(record: logging.LogRecord) -> bool:
        return "orbax" not in record.pathname and "tensorstore" not in record.getMessage()

    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    for logger in loggers:
        logger.addFilter(keep)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(keep)


def _wait_for_orbax_threads(seconds: float = 10) -> None:
    """Wait for threads that outlive a failed save; they would log its exception, too."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        threads = [thread for thread in threading.enumerate() if type(thread).__module__.startswith("orbax.")]
        if not threads:
            return
        threads[0].join(end - time.monotonic())


def check_same_classes(path: Path, stored: Sequence[str], expected: Sequence[str]) -> None:
    """Check that a checkpoint has the classes of its run, in the same order.

    Raises:
        UserError: If not; the message lists the differences.
    """
    difference = describe_class_difference(stored, expected, new_place="config.json")
    if difference:
        raise UserError(
            f"{path}: the classes of this checkpoint differ from {path.parents[1] / 'config.json'}:\n{difference}"
        )


def check_same_parameters(path: Path, stored: Any, expected: Any) -> None:
    """Check that the parameters of a checkpoint have the expected names and shapes.

    Raises:
        UserError: If not; the message lists up to 20 parameters that are missing, not expected, or of another shape.
    """
    have, want = _shapes(stored), _shapes(expected)
    lines = [f"  {name}: missing, {want[name]} expected" for name in want.keys() - have.keys()]
    lines += [f"  {name}: {have[name]}, not in this model" for name in have.keys() - want.keys()]
    lines += [f"  {n}: {have[n]}, {want[n]} expected" for n in want.keys() & have.keys() if want[n] != have[n]]
    if lines:
        header = f"{path}: this checkpoint has another architecture or number of classes:"
        more = [f"  and {len(lines) - _MAX_LISTED} more"] if len(lines) > _MAX_LISTED else []
        raise UserError("\n".join([header, *sorted(lines)[:_MAX_LISTED], *more]))


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda leaf: hasattr(leaf, "shape"))
    return {"/".join(str(key.key) for key in path): tuple(leaf.shape) for path, leaf in leaves}


def _abstract_array(leaf: jax.Array | jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)


def _system_reason(error: BaseException | None) -> str | None:
    """Return the operating system's reason for a failed write, from the error or its causes; None if it has none.

    Orbax wraps errors of its writer threads in exceptions of its own.
    """
    while error is not None:
        if isinstance(error, OSError):
            return error.strerror or str(error)
        code = re.search(r"os_error_code='(\d+)'", str(error))  # TensorStore, in a ValueError
        if code:
            return os.strerror(int(code[1]))
        error = error.__cause__ or error.__context__
    return None
