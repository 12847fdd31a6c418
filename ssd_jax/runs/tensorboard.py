"""Writer of TensorBoard scalars."""

import time
from collections.abc import Mapping
from pathlib import Path

from ssd_jax.files import convert_write_errors


class TensorBoardWriter:
    """Writer of a new event file, whose first event makes TensorBoard discard the scalars of later steps.

    tensorboardX's SummaryWriter is not used, because it writes in a thread that ends silently when the disk is full;
    the next write then blocks forever.

    Args:
        folder: Folder of the event files. It is created if it does not exist.
        step: Step from which the run continues.

    Raises:
        UserError: If the file cannot be written.
    """

    def __init__(self, folder: Path, step: int) -> None:
        # Not imported above: tensorboardX imports torch if torch is installed, which takes seconds.
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        self._folder = folder
        with convert_write_errors(folder):
            folder.mkdir(exist_ok=True)
            # tensorboardX takes a relative path that begins with "s3:" or "gs:" for cloud storage.
            self._writer = EventsWriter(str((folder / "events").absolute()))
            start = SessionLog(status=SessionLog.START)
            self._writer.write_event(Event(wall_time=time.time(), step=step + 1, session_log=start))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write scalars and flush the file.

        Raises:
            UserError: If the file cannot be written.
        """
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        with convert_write_errors(self._folder):
            for name, value in values.items():
                self._writer.write_event(Event(wall_time=time.time(), step=step, summary=scalar(name, value)))
            self._writer.flush()

    def close(self, failed: bool) -> None:
        """Close the file."""
        self._writer.close()
