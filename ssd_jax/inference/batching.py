"""Choice of the number of images in which a device detects objects at the same time."""

from typing import Literal

Batching = Literal["single", "padded", "any"]
"""How many images a function takes in one call: one, always the same number, or any number."""


def choose_batching() -> Batching:
    """Return how many images a program of JAX should take in one call on the first device of this process.

    On a CPU, batches are single images in several threads: they keep all cores as busy as larger batches do, and the
    detections in an image do not depend on the other images, up to the last bit.
    """
    import jax

    return "single" if jax.local_devices()[0].platform == "cpu" else "padded"
