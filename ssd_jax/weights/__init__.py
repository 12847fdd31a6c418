"""Import, verify and export weights of other projects.

``formats`` reads and writes files, ``key_mappings`` maps their keys to our parameters, and ``presets`` has the
networks and settings that they are used with. Torch, Caffe and Keras are not needed, except for ``torch_reference``.
The package may import ``inference`` and everything below; ``training`` and ``commands`` import it. Add a project with
a key mapping and a preset, and a list of its keys in tests/assets/weight_keys.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
