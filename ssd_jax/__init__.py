"""SSD, the Single Shot MultiBox Detector (Liu et al. 2016, arXiv 1512.02325), in JAX and Flax.

Example, from a config file to detections::

    config = ssd_jax.load_config("own_data")
    run = ssd_jax.train(config, workdir="runs/mine")
    metrics = ssd_jax.evaluate(run, split="test")
    detector = ssd_jax.load(run)
    detections = detector("image.jpg")

These names are loaded when they are first used: importing the package does not import JAX, and sets no flag. The
subpackages (data, ops, models, training, inference, evaluation and others) are the steps from files to boxes; the
docstring of each one says what it contains. Functions of the method can be used alone: ``from ssd_jax.ops import nms``.
"""

import lazy_loader as lazy

__version__ = "0.2.0"

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
