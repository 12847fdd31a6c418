"""Checks of a data set before training.

`checks` finds problems and counts objects, `box_coverage` measures how well the default boxes fit the objects,
`summary` prints and writes the result, and `clean_copy` writes a data set without the problems. A new kind of problem
is entered in `ssd_jax.data.problems`, and found here if no reader can find it.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
