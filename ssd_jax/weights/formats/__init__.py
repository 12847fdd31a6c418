"""Readers and writers of weight files.

``weight_file`` recognises the format of a file and calls the reader for it. A reader returns arrays by key, runs no
code of the file, and raises UserError if the file is corrupt or hostile. ``reading`` has functions that the readers
share.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
