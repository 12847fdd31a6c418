"""The page that shows a detector in a browser: its files, and the config that each detector has for it.

``ssd-jax export --format web`` writes the page beside an ONNX file, which then runs in the browser; ``ssd-jax serve``
offers the same page, which then sends pictures to the server. The files are in ``files``: HTML, CSS, and JavaScript
modules without dependencies and without a build step.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
