"""Files with the detections of ``ssd-jax predict``: pictures, tables, and data sets to correct and to train on.

This package imports inference, drawing and data; the command ``predict`` imports it. A new format is a subclass of
`PredictionWriter` and a line in `writers`.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
