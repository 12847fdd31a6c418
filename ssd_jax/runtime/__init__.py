"""Devices and processes: the mesh and shardings, compilation, and several processes as one run.

The modules import only ``ssd_jax.errors``, and every package from data upwards may import them. Add here what concerns
how a program runs, not what it computes: ``sharding`` distributes arrays over devices, ``compilation`` sets how
programs are compiled, ``distributed`` and ``distributed_options`` connect processes, ``stop`` ends a run early, and
``exit_message`` says what to do when a process was killed.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
