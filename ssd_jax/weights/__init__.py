"""Import and verify weights of other projects, and export weights in their formats.

``formats`` reads and writes weight files, ``key_mappings`` maps the keys of these files to our parameters, and
``presets`` has the networks and settings that the weights are used with. Only ``torch_reference`` needs torch; no
module needs Caffe or Keras. The package may import ``inference`` and everything below it; ``training`` and
``commands`` import this package. To support another project, add a key mapping, a preset, and a list of the project's
keys in tests/assets/weight_keys.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
