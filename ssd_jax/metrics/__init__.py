"""Metrics of detections against annotations, and the diagnosis of errors.

The functions take numpy arrays, with boxes in pixels of the original images, and do not use JAX. This package imports
only the data types of data and inference. A new metric belongs next to `evaluate_voc` in `average_precision`;
`ssd_jax.evaluation.compute_metrics` puts it into metrics.json, and `tables` prints it. Numbers
that only the report shows belong in `diagnosis`.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
