from .network import ExportOptions as ExportOptions
from .network import Network as Network
from .run import export_model as export_model

__all__ = ["ExportOptions", "Network", "export_model"]
