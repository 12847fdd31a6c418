"""Evaluation of a trained network on a split of a data set.

This package imports inference, metrics and report; training and the command ``evaluate`` import it. The result format
of another challenge server belongs in `submission`.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
