"""The network as Flax Linen modules.

`SSD` is the whole network and `VGG16` its backbone; `layers/` holds the layers that need much code of their own. The
modules import only each other, `ssd_jax.config` and `ssd_jax.errors`; every package above may import them. A new
backbone gets its own module beside `vgg.py`, an option in `ssd_jax.config.Model`, and a branch in `SSD`.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
