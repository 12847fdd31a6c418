"""Devices and processes: the mesh and shardings, compilation, and several processes as one run.

The modules import only ``ssd_jax.errors`` and ``ssd_jax.portability`` from this project. ``data``
and all packages above it may import them.
``sharding`` distributes arrays over devices, ``compilation`` sets compiler options and the compilation cache,
``distributed`` and ``distributed_options`` connect processes, ``stop`` notices requests to stop training,
``interrupts`` lets Ctrl-C wait, and ``exit_message`` tells the user what to do after a process was killed.
``progress`` shows what is being done, with ``task`` for its texts, ``terminal_display`` for terminals and ``wrapping``
for long lines. Code that decides how a program runs, but not what it computes, belongs here.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
