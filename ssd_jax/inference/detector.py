"""A trained detector in a notebook: ``detector.load("runs/my_run")("photo.jpg")``."""

from pathlib import Path
from typing import NamedTuple, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import UInt8
from PIL import Image

from ssd_jax.config import Config
from ssd_jax.data.image import EXTENSIONS, read_image, to_rgb
from ssd_jax.data.loader import reduce_to_fit
from ssd_jax.errors import UserError
from ssd_jax.inference.program import make_predict_fn, to_image_detections
from ssd_jax.models.ssd import SSD, Params
from ssd_jax.runs import run_folder
from ssd_jax.runs.checkpoint import Checkpoints
from ssd_jax.runtime import sharding

ImageLike = str | Path | np.ndarray | Image.Image


class Detection(NamedTuple):
    """One object found."""

    name: str
    score: float
    box: tuple[float, float, float, float]
    """x1, y1, x2, y2 in pixels of the original image."""


class Detector:
    """Calls a trained network on images. Made by ``load``."""

    def __init__(self, config: Config, params: Params, step: int) -> None:
        self.config, self.params, self.step = config, params, step
        self.class_names = config.model.class_names
        self._program = make_predict_fn(config, sharding.single_device_mesh())

    @overload
    def __call__(self, images: ImageLike, *, score_threshold: float = 0.5) -> list[Detection]: ...
    @overload
    def __call__(self, images: list[ImageLike], *, score_threshold: float = 0.5) -> list[list[Detection]]: ...
    def __call__(
        self, images: ImageLike | list[ImageLike], *, score_threshold: float = 0.5
    ) -> list[Detection] | list[list[Detection]]:
        """Detections from ``score_threshold`` up, best first.

        One image gives a list; a list of images gives a list of lists. An image is a path, an RGB
        uint8 array (h, w, 3), or a Pillow image; grey ones and others are converted.

        Raises UserError where a file can't be read, TypeError or ValueError on other things.
        """
        if not 0 <= score_threshold <= 1:
            raise ValueError(f"score_threshold is {score_threshold}, must lie in [0, 1]")
        if isinstance(images, str | Path | np.ndarray | Image.Image):
            return self._detect_one(_as_array(images), score_threshold)
        return [self._detect_one(_as_array(image), score_threshold) for image in images]

    def _detect_one(self, image: UInt8[np.ndarray, "h w 3"], score_threshold: float) -> list[Detection]:
        # One image at a time: few compiled programs whatever comes, and the memory of one image.
        height, width = image.shape[:2]
        side = canvas_side(max(height, width), self.config.data.max_image_size)
        canvas = np.zeros((1, side, side, 3), np.uint8)
        content = reduce_to_fit(image, (side, side))
        canvas[0, : content.shape[0], : content.shape[1]] = content
        shape = np.array(content.shape[:2], np.int32)
        detections = self._program(self.params, canvas, shape[:1], shape[1:])
        found = to_image_detections(sharding.fetch(detections), 0, width, height)
        return [
            Detection(self.class_names[label - 1], float(score), (float(x1), float(y1), float(x2), float(y2)))
            for (x1, y1, x2, y2), score, label in zip(*found, strict=True)
            if score >= score_threshold
        ]


def canvas_side(longest: int, largest: int) -> int:
    """Pixels: 640 or as many times doubled as the image needs, but at most ``largest``."""
    side = 640
    while side < longest:
        side *= 2
    return min(side, largest)


def load(run: str | Path, checkpoint: str = "best") -> Detector:
    """The detector of a run folder: its ``best`` checkpoint (on the val split), or its ``last``.

    A run that never measured has no best one; then the last is taken. Raises UserError if the
    folder is not a run, or has no checkpoint yet, or one that does not fit its config.
    """
    folder = Path(run)
    config = read_detector_config(folder)
    if checkpoint not in ("best", "last"):
        raise UserError(f"checkpoint is {checkpoint!r}: either best or last")
    if not config.model.class_names:
        raise UserError(
            f"{run}: holds VGG16 alone, no detector. Train one from it: train.py CONFIG --train.pretrained {run}"
        )
    params, step = restore_params(folder, config, checkpoint)
    return Detector(config, params, step)


def read_detector_config(run: Path) -> Config:
    """The config of a run. Raises UserError if the folder is none, or holds a trunk alone, which has no classes."""
    config = run_folder.read_config(run)
    if not config.model.class_names:
        raise UserError(f"{run}: holds VGG16 alone, no detector. Train one: train.py CONFIG --train.pretrained {run}")
    return config


def restore_params(run: Path, config: Config, checkpoint: str, mesh: Mesh | None = None) -> tuple[Params, int]:
    """Parameters to detect with, and their step; of a trunk alone, which has no classes, what it holds.

    mesh: the devices to have them on, each all of them; by default one.
    """
    folder = run / "checkpoints"
    if not folder.is_dir():
        raise UserError(f"{run}: has no checkpoint yet; train it first")
    size = config.model.image_size
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    shapes = jax.eval_shape(SSD(config.model).init, jax.random.key(0), images)["params"]
    placement = sharding.replicated(mesh or sharding.single_device_mesh())
    like = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=placement), shapes)
    with Checkpoints(folder) as checkpoints:
        step = checkpoints.latest if checkpoint == "last" else checkpoints.best or checkpoints.latest
        if step is None:
            raise UserError(f"{run}: has no checkpoint yet; train it first")
        if not config.model.class_names:
            like = {"vgg": {name: like["vgg"][name] for name in checkpoints.parameter_names(step, "vgg")}}
        saved = checkpoints.restore(step, {"params": like}, config.model.class_names)
    return saved.trees["params"], step


def _as_array(image: ImageLike) -> UInt8[np.ndarray, "h w 3"]:
    if isinstance(image, str | Path):
        return read_image(Path(image))
    if isinstance(image, Image.Image):
        return to_rgb(image)
    if not isinstance(image, np.ndarray):
        raise TypeError(f"an image is a path, an array or a Pillow image; this is a {type(image).__name__}")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(f"an image array is uint8 of shape (h, w, 3), RGB; this is {image.dtype} of {image.shape}")
    return image


def find_images(path: Path, exclude: Path | None = None) -> list[Path]:
    """The file itself, or every image in the folder and below it, in order of name.

    exclude: a folder to pass over, such as that of the annotated pictures.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"{path}: no such file or folder")
    found = [file for file in sorted(path.rglob("*")) if file.suffix.lower() in EXTENSIONS and file.is_file()]
    if exclude is not None:
        found = [file for file in found if not file.resolve().is_relative_to(exclude.resolve())]
    if not found:
        raise UserError(f"{path}: no images in it ({' '.join(sorted(EXTENSIONS))})")
    return found
