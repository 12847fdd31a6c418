"""Options of ``ssd-jax predict`` for what is detected and for what is written."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated

import tyro

from ssd_jax.errors import UserError
from ssd_jax.predictions.formats import Format

if TYPE_CHECKING:  # not imported at run time, so that --help is fast
    from ssd_jax.inference.detector import Detector
    from ssd_jax.inference.results import Detections
    from ssd_jax.predictions.pictures import DrawingOptions


@dataclass(frozen=True)
class OutputOptions:
    """Options for what is detected and for what is written."""

    save: tuple[Format, ...] = ("pictures", "json")
    """Files to write, any of these. json, csv: tables. coco, yolo, voc: data sets with links to the images, to correct
    and to train on. crops: the parts of the images in the boxes."""
    pictures: bool = True
    """Write the images with their boxes if --save names them."""
    score: float = 0.5
    """Minimum score of the detections."""
    score_of: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="CLASS=SCORE")] = ()
    """Minimum score of the detections of a class, such as cat=0.3, in place of --score. Give it once per class."""
    classes: Annotated[tuple[str, ...] | None, tyro.conf.arg(metavar="CLASS [CLASS ...]")] = None
    """Names of the classes to detect. Default: all."""
    max_detections: int | None = None
    """Maximum number of detections per image, the best ones. Default: that of the network, which is usually 200."""
    nms_iou: float | None = None
    """Maximum IoU of two detections of a class: of two boxes above it, only the better one is a detection. Default:
    that of the network, which is usually 0.45."""
    tile: int | None = None
    """Detect in overlapping tiles of this side in pixels, such as 640, to find small objects in large images."""
    overlap: float = 0.2
    """Least share of the side of a tile that neighbouring tiles have in common."""
    line_width: int | None = None
    """Width of the lines in pixels. Default: it grows with the image."""
    hide_labels: bool = False
    """Draw boxes without names and scores."""
    hide_scores: bool = False
    """Draw boxes with names, but without scores."""

    def check(self) -> None:
        """Raise an error about a value that needs no detector to be found wrong.

        Raises:
            UserError: If a value is outside of its range, or nothing would be written.
        """
        from ssd_jax.inference.tiles import check_tile_options

        for option, value in (("score", self.score), ("nms-iou", self.nms_iou)):
            if value is not None and not 0 <= value <= 1:
                raise UserError(f"--{option} is {value}: expected a number from 0 to 1")
        for option, number in (("max-detections", self.max_detections), ("line-width", self.line_width)):
            if number is not None and number < 1:
                raise UserError(f"--{option} is {number}: expected a number of at least 1")
        if self.tile is not None:
            check_tile_options(self.tile, self.overlap, "--")
        if self.classes == ():
            raise UserError("--classes names no class: write names after it, such as --classes cat dog")
        if not self.formats:
            raise UserError("nothing would be written: name something with --save, such as --save json")
        assert self.scores_of_classes is not None  # raises an error about a wrong --score-of

    @cached_property
    def formats(self) -> tuple[Format, ...]:
        """Return the formats to write, without repetition."""
        return tuple(dict.fromkeys(name for name in self.save if self.pictures or name != "pictures"))

    @cached_property
    def scores_of_classes(self) -> Mapping[str, float]:
        """Minimum scores from --score-of by class.

        Raises:
            UserError: If an entry is not of the form CLASS=SCORE.
        """
        scores = {}
        for entry in self.score_of:
            name, _, text = entry.rpartition("=")
            try:
                value = float(text)
            except ValueError:
                value = -1.0
            if not name or not 0 <= value <= 1:
                raise UserError(f"--score-of {entry}: expected a class and a number from 0 to 1, such as cat=0.3")
            scores[name] = value
        return scores

    @property
    def drawing(self) -> "DrawingOptions":
        """How boxes are drawn."""
        from ssd_jax.predictions.pictures import DrawingOptions

        return DrawingOptions(self.line_width, not self.hide_labels, not self.hide_scores)

    def adjust(self, detector: "Detector", name: str) -> "Detector":
        """Return a detector with the limits of these options, after checking the names of classes.

        Args:
            detector: The detector.
            name: Name of the detector, for messages.

        Raises:
            UserError: If there is no class of a name, or the limits of an exported file would have to change.
        """
        from ssd_jax.inference.adjusting import adjust_detector
        from ssd_jax.inference.results import check_classes

        check_classes(self.classes or (), detector.class_names, "--classes")
        check_classes(self.scores_of_classes, detector.class_names, "--score-of")
        return adjust_detector(detector, name, nms_iou=self.nms_iou, max_detections=self.max_detections)

    def select(self, detections: "Detections") -> "Detections":
        """Return the detections of an image that these options ask for."""
        thresholds = {name: self.scores_of_classes.get(name, self.score) for name in detections.classes}
        chosen = detections.filter(classes=self.classes, score_threshold=thresholds)
        return chosen[: self.max_detections]

    def describe_threshold(self, detector: "Detector", name: str) -> str | None:
        """Return a note if a detector returns no detections with scores as low as these options allow."""
        limit = detector.config.detect.score_threshold
        options = [f"--score {self.score:g}"] * (self.score < limit)
        options += [f"--score-of {key}={value:g}" for key, value in self.scores_of_classes.items() if value < limit]
        if not options:
            return None
        advice = "detect.score_threshold of its config"
        if detector.params is None:
            advice = "which `ssd-jax export --score-threshold` changes"
        return f"Despite {', '.join(options)}, {name} returns only scores above {limit:g}, its own threshold, {advice}."

    def describe_scores(self) -> str:
        """Return the minimum scores for a message, such as "a score of at least 0.5 (cat: 0.3)"."""
        exceptions = ", ".join(f"{name}: {score:g}" for name, score in self.scores_of_classes.items())
        return f"a score of at least {self.score:g}" + (f" ({exceptions})" if exceptions else "")
