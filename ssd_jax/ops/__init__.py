"""The SSD method as pure functions of arrays, most of which also work under `jax.jit` and `jax.vmap`.

Boxes, default boxes, matching, the loss, augmentation, resampling, suppression and detection live here. The
modules import only each other, `ssd_jax.config` and `ssd_jax.errors`; every package above may import them. A
function that is a whole step of the method, such as `match`, takes its section of the config, whose default has the
values of the paper. Smaller functions take plain numbers. A new step gets its own module, and its function a line in
`__init__.pyi`.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
