"""Write data sets in other formats: VOC, COCO, YOLO, and ArrayRecord files of tensorflow-datasets.

`convert_data_set` reads any data set that `ssd_jax.data.formats` reads, and writes it with one of the writers.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
