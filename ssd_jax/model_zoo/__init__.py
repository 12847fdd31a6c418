"""Trained networks: open one from a run, a model folder, a weight file or by its name, and write model folders.

A model folder holds a network for inference in three files, without checkpoints and data. This package may import
``weights``, ``inference`` and everything below them; ``evaluation``, ``training`` and ``commands`` import this package
wherever a user names a trained network.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
