"""Files that contain a whole detector, from pixels to boxes, without this package's code: read them and run them.

`ssd_jax.exported.metadata` has what a file says about itself, and `ssd_jax.exported.program` what all formats have in
common: a program that was read from a file. `ssd_jax.exported.prediction` detects objects with it. Each format has a
module that reads it. `ssd_jax.export` writes the files. This package imports no code of the network: only ``ops`` and
``runtime``, and those where a format needs them.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
