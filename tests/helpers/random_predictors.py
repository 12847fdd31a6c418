"""Random weights for the predictors, whose usual initial weights predict the same for all images."""

from typing import Any

import jax


def randomize_predictors(params: Any) -> Any:
    """Return the parameters with random values for the predictors, so that predictions depend on the image."""

    def redraw(path: tuple, leaf: jax.Array) -> jax.Array:
        return 0.1 * jax.random.normal(jax.random.key(2), leaf.shape) if "mbox" in str(path) else leaf

    return jax.tree_util.tree_map_with_path(redraw, params)
