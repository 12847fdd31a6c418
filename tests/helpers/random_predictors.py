"""Give the predictors random weights. With the usual initial weights, scores do not depend on the image."""

from typing import Any

import jax


def randomize_predictors(params: Any) -> Any:
    """Return the parameters with random weights of the predictors, so that predictions depend on the image."""

    def redraw(path: tuple, leaf: jax.Array) -> jax.Array:
        return 0.1 * jax.random.normal(jax.random.key(2), leaf.shape) if "mbox" in str(path) else leaf

    return jax.tree_util.tree_map_with_path(redraw, params)
