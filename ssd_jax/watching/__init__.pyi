from .app import make_watch_app as make_watch_app
from .watcher import Watcher as Watcher

__all__ = ["Watcher", "make_watch_app"]
