"""Readers of data sets: VOC, COCO, YOLO, ILSVRC and tensorflow-datasets, and the generated data set ``shapes``.

`open_source` finds the format of a data set and opens a split of it. The modules import from `ssd_jax.data`, and
only `ssd_jax.data.check` and later packages import from here. To add a format, see `ssd_jax.data.formats.open`.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
