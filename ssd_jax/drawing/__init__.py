"""Boxes and their labels on images, and fonts for class names in any script.

This package imports errors only; inference and all packages above it may import it. Figures of runs and data sets
belong in `ssd_jax.report`.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
