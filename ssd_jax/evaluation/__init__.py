"""Evaluation of a trained network on a split of a data set.

Imports inference, metrics and report. Training evaluates with it, and the command ``evaluate`` calls it. A result
format of another challenge server belongs in `submission`.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
