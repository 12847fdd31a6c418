from .exporting import Exported as Exported
from .exporting import export_weights as export_weights
from .importing import Imported as Imported
from .importing import import_weights as import_weights
from .importing import write_run as write_run
from .verification import Comparison as Comparison
from .verification import verify_weights as verify_weights

__all__ = [
    "Comparison",
    "Exported",
    "Imported",
    "export_weights",
    "import_weights",
    "verify_weights",
    "write_run",
]
