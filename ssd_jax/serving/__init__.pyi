from .app import make_app as make_app
from .limits import Batching as Batching
from .limits import ConnectionLimits as ConnectionLimits
from .limits import Limits as Limits
from .protection import protect as protect
from .server import run_server as run_server

__all__ = ["Batching", "ConnectionLimits", "Limits", "make_app", "protect", "run_server"]
