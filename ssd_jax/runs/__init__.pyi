from .checkpoint import Checkpoints as Checkpoints
from .log import read_log as read_log
from .log import read_results as read_results
from .run_folder import read_config as read_config

__all__ = ["Checkpoints", "read_config", "read_log", "read_results"]
