"""Drawings on images, figures of runs and data sets, and the report page.

This package imports metrics, inference, data and runs; evaluation, training and the commands import it. A new section
of the report belongs in the template page.html.j2, and its numbers belong in `make_report_context` in `page`.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
