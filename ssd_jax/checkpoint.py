"""Checkpoints of a run: the latest and the best, through Orbax.

Each holds ``params`` (with their moving average if there is one), ``training`` (what only going on
needs), and as metadata the config and the position of the data stream.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from orbax.checkpoint import v1 as ocp

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
    """The folder ``checkpoints`` of a run. A context manager; use from one thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self._checkpointer = ocp.training.Checkpointer(
            self.folder, preservation_policy=_policy(), cleanup_tmp_directories=True
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
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
            if not _is_disk_error(error):
                raise
            raise UserError(
                f"{self.folder}: the checkpoint of step {step} could not be written ({_first_line(error)}). Free some "
                "space and run the same command again; it goes on from the last checkpoint"
            ) from error

    def restore(self, step: int, like: dict[str, Any]) -> Saved:
        """The trees named in ``like``, whose leaves (arrays, or shapes with shardings) say where to put them.

        Raises UserError if they do not fit, naming the parameters.
        """
        metadata = self._checkpointer.metadata(step)
        stored = self._checkpointer.checkpointables_metadata(step).metadata
        if "params" in like:
            check_same_parameters(self.folder / str(step), stored["params"], like["params"])
        trees = self._checkpointer.load_checkpointables(step, jax.tree.map(_abstract, like))
        return Saved(step, trees, metadata.custom_metadata)


def check_same_parameters(file: Path, stored: Any, expected: Any) -> None:
    """Raises UserError listing every parameter that is missing, extra or of another shape."""
    have, want = _shapes(stored), _shapes(expected)
    lines = [f"  {name}: missing, {want[name]} expected" for name in want.keys() - have.keys()]
    lines += [f"  {name}: {have[name]}, not in this model" for name in have.keys() - want.keys()]
    lines += [f"  {n}: {have[n]}, {want[n]} expected" for n in want.keys() & have.keys() if want[n] != have[n]]
    if lines:
        header = f"{file}: a checkpoint of another architecture or number of classes:"
        raise UserError("\n".join([header, *sorted(lines)]))


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda leaf: hasattr(leaf, "shape"))
    return {"/".join(str(key.key) for key in path): tuple(leaf.shape) for path, leaf in leaves}


def _abstract(leaf: jax.Array | jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)


def _is_disk_error(error: BaseException | None) -> bool:
    while error is not None:
        text = str(error).lower()
        if isinstance(error, OSError) or "no space" in text or "resource_exhausted" in text or "disk quota" in text:
            return True
        error = error.__cause__ or error.__context__
    return False


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
