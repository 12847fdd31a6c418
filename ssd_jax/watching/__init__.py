"""The page of ``ssd-jax watch``: run folders beside each other, and curves that move while a training goes on.

The modules only read. ``discovery`` finds run folders, ``log_tail`` reads what was appended to a log, ``curves`` keeps
a bounded number of points of it, ``run_reader`` puts the state of a run together, ``watcher`` does so for all runs of
a folder, and ``app`` answers the requests of the page, whose files are in the folder ``page``.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
