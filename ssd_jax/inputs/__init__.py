"""Inputs of a detector: images in files, folders, lists and at addresses, videos and cameras.

`ssd_jax.inputs.finding` turns what a user named into a list of inputs, and `ssd_jax.inputs.reading` reads them one
after the other. This package imports neither JAX nor anything about networks. Code about the annotated images of a data
set belongs in `ssd_jax.data`.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
