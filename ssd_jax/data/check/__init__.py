"""Check a data set before training.

`checks` finds problems and counts objects, `box_coverage` measures how well the default boxes fit the objects,
`summary` formats and writes the result, and `clean_copy` writes a copy of the data set without the problems. To add a
kind of problem, add it to `Kind` in `ssd_jax.data.problems`. `checks` looks for problems that are not found when a data
set is opened.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
