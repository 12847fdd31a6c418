"""Checkpoints of a run: the latest and the best, through Orbax.

Each holds ``params`` (with their moving average if there is one), ``training`` (what only going on
needs), and as metadata the config and the position of the data stream.
"""

import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, NamedTuple

import jax
from orbax.checkpoint import v1 as ocp

from ssd_jax.class_names import class_difference
from ssd_jax.errors import UserError

BEST_METRIC = "voc_map_area"


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
    return policies.AnyPreservationPolicy([policies.LatestN(1), best])


class Checkpoints:
    """The folder ``checkpoints`` of a run. A context manager; use from one thread.

    for_writing: clears away what a killed run left half written. Not for readers, who would take
        it from under a run that is just saving.
    """

    def __init__(self, folder: Path, *, for_writing: bool = False) -> None:
        self.folder, self._failed = folder.absolute(), False
        for name in ("absl", "asyncio"):
            logging.getLogger(name).addFilter(_from_elsewhere)
        self._checkpointer = ocp.training.Checkpointer(
            self.folder, preservation_policy=_policy(), cleanup_tmp_directories=for_writing
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
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
        """Blocks until it is on the disk. Raises UserError if it can't be written; earlier ones stay."""
        try:
            self._checkpointer.save_checkpointables(
                step,
                trees,
                force=True,
                metrics=None if best_metric is None else {BEST_METRIC: best_metric},
                custom_metadata=metadata,
            )
        except Exception as error:  # orbax wraps the writer's error in types of its own
            self._failed = True
            reason = _disk_reason(error)
            if reason is None:
                raise
            raise UserError(
                f"{self.folder}: the checkpoint of step {step} could not be written ({reason}). Those before it are "
                "kept. Free some space and give the same command again; it goes on from the last one"
            ) from error

    def layers(self, step: int, module: str) -> list[str]:
        """What a checkpoint's parameters hold in a module."""
        with _reading(self.folder / str(step)):
            return list(self._checkpointer.checkpointables_metadata(step).metadata["params"][module])

    def restore(self, step: int, like: dict[str, Any], class_names: Sequence[str]) -> Saved:
        """The trees named in ``like``, whose leaves (arrays, or shapes with shardings) say where to put them.

        Raises UserError if they or the classes do not fit, naming the parameters, and if the
        checkpoint is damaged.
        """
        file = self.folder / str(step)
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
        raise UserError(
            f"{file}: this checkpoint can't be read, it is damaged or of another version ({_first_line(error)}). Move "
            "it away, and the one before it is taken, if there is one"
        ) from error


def check_same_classes(file: Path, stored: Sequence[str], expected: Sequence[str]) -> None:
    """Raises UserError if the checkpoint's classes are others than the run's, or in another order."""
    difference = class_difference(stored, expected, here="config.json")
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
