"""Training: the training step, the training loop, and the initial parameters.

`train` trains a detector from a config. The other exported names are for users who write their own training loop.
``train_step`` makes the training step and ``optimizer`` its optimizer; ``loop`` adds logging, evaluation and
checkpoints, and ``pretrained`` loads the initial parameters. This package may import every package except ``aot`` and
``commands``, which may import this one. A new schedule or optimizer belongs in ``optimizer`` and in the choices of
``ssd_jax.config.Optimizer``. Code that writes a new output file of a run belongs in ``reporter``, and what
is printed at the start and at the end in ``summary``.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
