"""Detection with a trained network: the jitted function from images to boxes, and the class `Detector`.

This package imports runs, data, models, ops and runtime; evaluation, training, weights and the commands import it.
Code that needs annotations belongs in `ssd_jax.metrics` or `ssd_jax.evaluation`.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
