"""The folder of a training run: its config, logs and checkpoints.

The modules import ``config``, ``files``, ``runtime`` and class names of ``data``; packages from inference upwards may
import them. ``run_folder`` creates a folder and locks it, ``config_file`` loads configs and checks their values,
``log`` writes log.jsonl, results.csv and TensorBoard's files, ``checkpoint`` saves and restores, and
``checkpoint_integrity`` detects corrupt checkpoints. Add here what reads or writes a file of a run; pictures belong to
``report``.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
