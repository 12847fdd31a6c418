"""Metrics of detections against annotations, and the diagnosis of errors.

Works on numpy arrays in pixels of the original images, without JAX. Imports the data types of data and inference.
Add a metric beside `evaluate_voc` in `average_precision`, and what only the report shows to `diagnosis`.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
