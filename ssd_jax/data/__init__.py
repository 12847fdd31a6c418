"""Read data sets from files and make batches of NumPy arrays.

A module of `formats` opens a split as a `Source`, `loader` makes batches from the source, and `check` looks for
problems of a data set before training. Modules of this package import `config`, `errors`, `files` and the default boxes
of `ops`, but not JAX. Only `loader` loads JAX indirectly, because it imports grain, which imports JAX. To add a format,
see `formats.open`.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
