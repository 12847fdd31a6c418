"""Compile the training step and the detection program for TPUs and GPUs that need not be present.

``targets`` describes devices, ``programs`` compiles the programs, ``compiled`` and ``flops`` determine their costs, and
``report`` formats the costs. The package may import all other packages except ``commands``. A new device belongs in
``targets.CHIPS``.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
