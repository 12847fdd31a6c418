"""The method: pure functions of arrays, usable alone under `jax.jit` and `jax.vmap`.

Boxes, default boxes, matching, the loss, augmentation, resampling, suppression and detection live here. The
modules import only each other, `ssd_jax.config` and `ssd_jax.errors`; every package above may import them. Functions
that are a step of the method take their section of the config, with the paper's values as the default; smaller
functions take plain numbers. A new step gets a module of its own, and a line in the stub beside this file.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
