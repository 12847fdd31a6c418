"""Restore the parameters for inference from the checkpoints of a run."""

from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh

from ssd_jax.config import Config
from ssd_jax.errors import UserError
from ssd_jax.models.parameters import Params, compute_parameter_shapes, nest_parameters
from ssd_jax.runs.checkpoint import Checkpoints, RestoredCheckpoint
from ssd_jax.runs.checkpoint_integrity import CorruptCheckpointError
from ssd_jax.runtime import sharding


def restore_params(run: Path, config: Config, checkpoint: str, mesh: Mesh | None = None) -> tuple[Params, int]:
    """Return the parameters for inference from a checkpoint of a run, and the training step of the checkpoint.

    If the checkpoint is corrupt, or has parameters that are not finite, another one is used and a warning is logged.

    Args:
        run: Folder of the run.
        config: Config of the run. If it has no classes, the parameters are those of the backbone.
        checkpoint: "best" or "last", as in `ssd_jax.load`.
        mesh: Devices that each get a copy of the parameters. None: one device.

    Raises:
        UserError: If ``checkpoint`` is neither "best" nor "last", the run has no intact checkpoint, or the checkpoint
            does not fit the config.
    """
    if checkpoint not in ("best", "last"):
        raise UserError(f"checkpoint must be 'best' or 'last', got {checkpoint!r}")
    folder = run / "checkpoints"
    no_checkpoint = UserError(f"{run} has no checkpoint yet. Train the run first")
    if not folder.is_dir():
        raise no_checkpoint
    placement = sharding.make_replicated_sharding(mesh or sharding.single_device_mesh())
    shapes = compute_parameter_shapes(config.model).items()
    target = nest_parameters({path: jax.ShapeDtypeStruct(s, np.float32, sharding=placement) for path, s in shapes})
    with Checkpoints(folder) as checkpoints:

        def restore(step: int) -> RestoredCheckpoint:
            wanted = target
            if not config.model.class_names:
                names = checkpoints.parameter_names(step, "vgg")
                wanted = {"vgg": {name: target["vgg"][name] for name in names}}
            saved = checkpoints.restore(step, {"params": wanted}, config.model.class_names)
            if not all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(saved.trees)):
                raise CorruptCheckpointError(f"{folder / str(step)}: some parameters of this checkpoint are NaN or inf")
            return saved

        saved = checkpoints.restore_preferred(checkpoint, restore)
    if saved is None:
        raise no_checkpoint
    return saved.trees["params"], saved.step
