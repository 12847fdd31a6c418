"""Compile the training step and the detection program for TPUs and GPUs that need not be present.

``targets`` describes devices, ``programs`` compiles, ``compiled`` and ``flops`` read costs, and ``report`` formats
them. The package may import everything except ``commands``. Add a device to ``targets.CHIPS``.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
