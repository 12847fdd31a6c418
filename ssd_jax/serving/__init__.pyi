from .limits import ConnectionLimits as ConnectionLimits
from .protection import protect as protect
from .server import run_server as run_server

__all__ = ["ConnectionLimits", "protect", "run_server"]
