"""Write predictions while objects are detected in the next pictures."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from ssd_jax.inference.pipeline import DetectedPicture
from ssd_jax.inference.results import Detections
from ssd_jax.inputs.finding import Input
from ssd_jax.inputs.reading import Picture, Unreadable
from ssd_jax.inputs.video import read_info
from ssd_jax.predictions.pictures import PictureWriter
from ssd_jax.predictions.prediction import Prediction, PredictionWriter
from ssd_jax.predictions.targets import make_frame_target
from ssd_jax.predictions.video_writer import VideoWriter
from ssd_jax.runtime.interrupts import DelayedInterrupt
from ssd_jax.runtime.ordered_map import map_in_order

_THREADS = 2


@dataclass
class Summary:
    """Counts of what was predicted, and lines for the user."""

    images: int = 0
    frames: int = 0
    detections: int = 0
    best_score: float = 0.0
    """Best score of any detection, also of those that are not selected."""
    notes: list[str] = field(default_factory=list)
    """Notes on pictures, each of which begins with the name of the picture."""
    unreadable: list[str] = field(default_factory=list)
    """Lines about the inputs that could not be read."""
    unreadable_count: int = 0
    is_interrupted: bool = False
    """Whether Ctrl-C ended it."""

    @property
    def count(self) -> int:
        """Number of images and frames."""
        return self.images + self.frames

    def add(self, picture: Picture, prediction: Prediction, best_score: float) -> None:
        """Count a prediction."""
        self.images += picture.frame is None
        self.frames += picture.frame is not None
        self.detections += len(prediction.detections)
        self.best_score = max(self.best_score, best_score)
        self.notes += [f"{picture.name}: {note}" for note in picture.notes]
        height, width = picture.pixels.shape[:2]
        if (width, height) != picture.size:
            full = f"{picture.size[0]} x {picture.size[1]} pixels"
            self.notes.append(f"{picture.name}: {full}; it is drawn at {width} x {height} pixels")


class _Drawn(NamedTuple):
    """A picture with its predictions."""

    picture: Picture
    prediction: Prediction
    drawing: UInt8[np.ndarray, "h w 3"] | bytes | None
    """With boxes: the pixels of a frame, or the file of an image. None if no pictures are written."""
    best_score: float


def write_in_order(
    results: Iterator[DetectedPicture | Unreadable],
    targets: Mapping[Input, Path],
    writers: Sequence[PredictionWriter],
    select: Callable[[Detections], Detections],
    progress: Callable[[], object],
) -> Summary:
    """Write predictions in the order of the pictures. Pictures are drawn in several threads.

    After Ctrl-C, the files of the predictions up to then are complete, and each of them is in all files.

    Args:
        results: The results of a detector.
        targets: Output file of each input, relative to the output folder.
        writers: Writers of the files. A writer of pictures also writes videos.
        select: Function that chooses the detections of a picture to write.
        progress: Function that is called after each picture.

    Raises:
        UserError: If a file cannot be written.
    """
    drawers = [writer for writer in writers if isinstance(writer, PictureWriter)]
    others = [writer for writer in writers if not isinstance(writer, PictureWriter)]

    def draw(result: DetectedPicture | Unreadable) -> _Drawn | Unreadable:
        if isinstance(result, Unreadable):
            return result
        picture, detections = result
        prediction = _make_prediction(picture, select(detections), targets)
        drawing: Any = None
        for writer in drawers:
            drawing = writer.encode(prediction) if picture.frame is None else np.asarray(writer.draw(prediction))
        return _Drawn(picture, prediction, drawing, max((d.score for d in detections), default=0.0))

    summary = Summary()
    drawn = map_in_order(draw, results, threads=_THREADS, ahead=2 * _THREADS)
    with _Videos() as videos, contextlib.closing(drawn), DelayedInterrupt() as interrupt:
        try:
            for result in drawn:
                with interrupt.delay():
                    if isinstance(result, Unreadable):
                        summary.unreadable += result.lines
                        summary.unreadable_count += 1
                    else:
                        for writer in others:
                            writer.write(result.prediction)
                        for writer in drawers:
                            _write_drawing(writer, result, targets, videos, summary)
                        summary.add(result.picture, result.prediction, result.best_score)
                    progress()
        except KeyboardInterrupt:
            summary.is_interrupted = True
    return summary


def _make_prediction(picture: Picture, detections: Detections, targets: Mapping[Input, Path]) -> Prediction:
    target = targets[picture.input]
    if picture.frame is not None:
        target = make_frame_target(target, picture.frame)
    source = Path(picture.name) if picture.input.kind == "image" else None
    return Prediction(picture.name, target, picture.pixels, detections, source, picture.frame)


def _write_drawing(
    writer: PictureWriter, drawn: _Drawn, targets: Mapping[Input, Path], videos: "_Videos", summary: Summary
) -> None:
    """Write an image with boxes, or append a frame with boxes to its video."""
    if not isinstance(drawn.drawing, np.ndarray):
        writer.write(drawn.prediction, drawn.drawing)
        return
    source = drawn.picture.input
    is_new = videos.write(writer.out / targets[source], drawn.drawing, drawn.picture.seconds or 0.0)
    if is_new and source.kind == "video" and read_info(source.location).has_audio:
        summary.notes.append(f"{source.location}: its audio is not copied")


class _Videos:
    """Writers of the videos, one after the other. Those that are not complete after an error are removed."""

    def __init__(self) -> None:
        self._target: Path | None = None
        self._writer: VideoWriter | None = None

    def __enter__(self) -> "_Videos":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._close(keep=kind is None)

    def write(self, target: Path, frame: UInt8[np.ndarray, "h w 3"], seconds: float) -> bool:
        """Append a frame to a video, and return whether it is the first one. Those of one video come in succession."""
        is_new = self._writer is None or target != self._target
        if is_new:
            self._close(keep=True)
            self._target, self._writer = target, VideoWriter(target)
        assert self._writer is not None, "it was just made"
        self._writer.write(frame, seconds)
        return is_new

    def _close(self, *, keep: bool) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close(keep=keep)
