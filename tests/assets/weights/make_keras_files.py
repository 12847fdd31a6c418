"""Write keras3.h5, keras3.weights.h5 and keras3_bfloat16.weights.h5 with Keras and its JAX backend.

    KERAS_BACKEND=jax python tests/assets/weights/make_keras_files.py

The files in the repository were written by Keras 3.15.1.

Kernels contain the numbers 0, 1, 2, ..., biases the numbers 100, 101, ... The layers are Conv2D, and their names are
not in alphabetical order.
"""

from pathlib import Path

import keras
import numpy as np

FOLDER = Path(__file__).parent


def make_model(dtype: str) -> keras.Model:
    """Return a model of two convolutions with known weights."""
    images = keras.Input((4, 4, 3))
    convolve = keras.layers.Conv2D(2, 3, name="conv1_2", dtype=dtype)
    model = keras.Model(images, keras.layers.Conv2D(1, 1, name="conv1_1", dtype=dtype)(convolve(images)))
    model.set_weights(
        [(np.arange(v.size) + (100 if v.ndim == 1 else 0)).reshape(v.shape) for v in map(np.asarray, model.weights)]
    )
    return model


make_model("float32").save(FOLDER / "keras3.h5")
make_model("float32").save_weights(FOLDER / "keras3.weights.h5")
make_model("bfloat16").save_weights(FOLDER / "keras3_bfloat16.weights.h5")
