"""HTTP servers: detection over HTTP, and what every server of this program shares.

`ssd_jax.serving.server` runs an ASGI app on an address, and `ssd_jax.serving.protection` adds the security headers and
refuses requests of other web sites. Both know nothing of detection. The packages that this one needs are installed by
the extra ``serve``; a command calls `ssd_jax.serving.packages.check_can_serve` before it imports another module of it.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
