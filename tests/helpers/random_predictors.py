"""Random weights for the predictors, whose initial predictions are constants when training from scratch."""

from typing import Any

import jax


def with_random_predictors(params: Any) -> Any:
    """Replace the kernels and biases of the predictors by random ones, so that predictions depend on the image."""

    def redraw(path: tuple, leaf: jax.Array) -> jax.Array:
        return 0.1 * jax.random.normal(jax.random.key(2), leaf.shape) if "mbox" in str(path) else leaf

    return jax.tree_util.tree_map_with_path(redraw, params)
