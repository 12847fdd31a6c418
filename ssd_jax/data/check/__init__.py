"""Check a data set before training.

`checks` reads the images and collects all problems, `contents` counts objects and finds doubtful contents (also for
training), `box_coverage` measures how well the default boxes fit the objects, `recommendation` chooses a config,
`summary` formats and writes the result, and `clean_copy` writes a copy of the data set without the problems. To add a
kind of problem, add it to `Kind` in `ssd_jax.data.problems`.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
