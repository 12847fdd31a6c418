"""Audit of the annotations of a split: what a detector doubts in them.

This package imports training, evaluation and report; the command ``audit`` imports it. The doubts themselves and their
scores are in `ssd_jax.metrics.doubts`; another file format of the proposals belongs in `proposals`.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
