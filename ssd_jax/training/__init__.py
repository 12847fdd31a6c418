"""Training: the step, the loop around it, and what it starts from.

`train` runs everything for a config; the other names are its parts, for training code of one's own. A training step
is composed in ``train_step``, its optimizer in ``optimizer``; ``loop`` adds logging, evaluation and checkpoints,
``pretrained`` the initial parameters. This package may import every package but ``aot`` and ``commands``, which may
import it. A new schedule or optimizer belongs in ``optimizer``, a new output of a run in ``reporter``.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
