"""The config, logs and checkpoints in the folder of a training run.

The modules import ``config``, ``files``, ``runtime`` and ``data.class_names``; ``inference`` and all packages above it
may import them. ``run_folder`` creates and locks a run folder, ``config_file`` loads configs and checks their values,
``log`` writes log.jsonl, results.csv and the TensorBoard files, ``checkpoint`` saves and restores checkpoints, and
``checkpoint_integrity`` detects corrupt ones. Code that reads or writes a file of a run folder belongs here, except for
pictures, which belong to ``report``.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
