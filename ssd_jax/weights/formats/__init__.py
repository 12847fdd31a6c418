"""Readers and writers of weight files.

``weight_file`` recognises the format and calls its reader. Readers return arrays by key, run no code of a file, and
raise UserError for files that are corrupt or hostile. ``reading`` has what they share.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
