"""Read data sets in the formats VOC, COCO, YOLO, ILSVRC and tensorflow-datasets, and generate the data set ``shapes``.

`open_source` finds the format of a data set and opens a split of it. To add a format, see
`ssd_jax.data.formats.open`. Modules of this package import from `ssd_jax.data`; modules that are imported by them
(`source`, `splits`, `problems`, ...) must not import from this package.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
