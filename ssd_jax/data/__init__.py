"""Data sets: from files to batches of NumPy arrays.

A reader of `formats` opens a split as a `Source`, `loader` makes batches of it, and `check` looks for problems before
training. Modules of this package import `config`, `errors`, `files` and the default boxes of `ops`, never JAX; only
`loader` needs grain, which imports it. A new format is a module of `formats` that is entered in `formats.open`.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
