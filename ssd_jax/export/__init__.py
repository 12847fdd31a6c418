"""Export of a trained detector to a file that other programs run, and its comparison with the original.

`export_model` is the function behind ``ssd-jax export``. Each format has a module that writes it, which the table
`ssd_jax.export.formats.WRITERS` names; `ssd_jax.exported` reads the files. This package may import everything below
``training``.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
