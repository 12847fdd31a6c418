"""One HTML page that tells how good a run is, and why: numbers, curves, mix-ups, the worst images.

The page is a tree of elements that is serialised at the end, so whatever users name (classes,
images, runs) is escaped by construction. It refers to no other file and runs no script.
"""

# ruff: noqa: RUF001 (what people read has real apostrophes and dashes)

import base64
import importlib.metadata
import importlib.resources
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
from jaxtyping import Float, Int64, UInt8

from ssd_jax import __version__, files
from ssd_jax.config import Config
from ssd_jax.data.source import Annotation, Source
from ssd_jax.errors import UserError
from ssd_jax.inference.detections import ImageDetections
from ssd_jax.metrics import diagnosis
from ssd_jax.metrics.diagnosis import Curve, Diagnosis, Fault, ImageVerdict, Interval
from ssd_jax.report.draw import Colour, draw_boxes

WORST_IMAGES = 12
PICTURE_SIDE = 640
"""Longest side of an embedded picture, pixels: two of them stand side by side on a wide screen."""

Metrics = Mapping[str, Any]
"""What metrics.json holds."""

Element = ElementTree.Element
Content = str | Element | None | Iterable["Content"]


def write_report(
    file: Path,
    config: Config,
    source: Source,
    detections: Sequence[ImageDetections],
    metrics: Metrics,
    annotations: Sequence[Annotation],
) -> None:
    """Diagnoses the detections of a split and writes the page.

    Args:
        file: in the run's folder, which gives the page its title.
        config: the run's.
        source: the split.
        detections: one for each image of it.
        metrics: what metrics.json holds, of the same detections.
    """
    found = diagnosis.diagnose(detections, annotations, config.model.class_names)
    worst = [
        picture_image(source, i, detections[i], found.images[i])
        for i in diagnosis.worst_images(found.images, WORST_IMAGES)
    ]
    files.write_text(file, render_page(file.resolve().parent.name, config, metrics, found, worst))


# ---- pictures ----

RIGHT: Colour = (45, 190, 165)
WRONG: Colour = (240, 60, 45)
MISSED: Colour = (255, 180, 0)
IGNORED: Colour = (150, 150, 150)


class PicturedImage(NamedTuple):
    """An image of the split, what is wrong in it, and two JPEG files: what is there, what was found."""

    image_id: str
    objects: int
    faults: dict[Fault, int]
    truth: bytes | None
    found: bytes | None
    """None where the image can't be read."""


def picture_image(source: Source, index: int, found: ImageDetections, verdict: ImageVerdict) -> PicturedImage:
    """Boxes are coloured by what became of them, and only those that are not right have a label."""
    annotation = source.annotation(index)
    objects = int((~(annotation.difficult | annotation.crowd)).sum())
    pictured = PicturedImage(annotation.image_id, objects, verdict.faults(), None, None)
    try:
        image = source.image(index)
    except UserError:  # counted and reported by the loader
        return pictured
    names, shown = source.class_names, found.boxes_px[list(verdict.shown)]
    return pictured._replace(
        truth=_draw(image, annotation.boxes_px, _truth_labels(annotation, verdict, names), MISSED),
        found=_draw(image, shown, _found_labels(found, annotation, verdict, names), WRONG),
    )


UNLABELLED, UNLABELLED_IGNORED = "", " "
"""Labels of boxes that are right or ignored: draw_boxes colours by label, and writes nothing for a blank one."""


def _truth_labels(annotation: Annotation, verdict: ImageVerdict, names: Sequence[str]) -> list[str]:
    labels = [
        f"{names[label - 1]}, missed" if i in verdict.missed else UNLABELLED
        for i, label in enumerate(annotation.labels)
    ]
    ignored = annotation.difficult | annotation.crowd
    return [UNLABELLED_IGNORED if ignored[i] else label for i, label in enumerate(labels)]


def _found_labels(
    found: ImageDetections, annotation: Annotation, verdict: ImageVerdict, names: Sequence[str]
) -> list[str]:
    labels = []
    for i, kind, there in zip(verdict.shown, verdict.verdicts, verdict.objects, strict=True):
        if kind in ("right", "ignored"):
            labels.append(UNLABELLED if kind == "right" else UNLABELLED_IGNORED)
        else:
            why = kind if there is None else f"is {names[annotation.labels[there] - 1]}"
            labels.append(f"{names[found.labels[i] - 1]} {found.scores[i]:.2f}, {why}")
    return labels


def _draw(
    image: UInt8[np.ndarray, "h w 3"], boxes_px: Float[np.ndarray, "k 4"], labels: Sequence[str], colour: Colour
) -> bytes:
    """A JPEG file; colour is that of boxes with a label, which lie on top."""
    order = sorted(range(len(labels)), key=lambda i: labels[i].strip() != "")
    colours = dict.fromkeys(labels, colour) | {UNLABELLED: RIGHT, UNLABELLED_IGNORED: IGNORED}
    scale = PICTURE_SIDE / max(image.shape[:2])
    picture = draw_boxes(image, boxes_px[order], [labels[i] for i in order], colours=colours, scale=scale)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=80)
    return file.getvalue()


# ---- page ----


def tag(name: str, /, *content: Content, **attributes: str) -> Element:
    """An HTML element. Attributes that are Python's words end in _, and a - is written as _."""
    element = Element(name, {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items()})
    _append(element, content)
    return element


def _append(parent: Element, content: Content) -> None:
    if isinstance(content, Element):
        parent.append(content)
    elif isinstance(content, str):
        if len(parent):
            parent[-1].tail = (parent[-1].tail or "") + content
        else:
            parent.text = (parent.text or "") + content
    elif content is not None:
        for part in content:
            _append(parent, part)


def render_page(
    run: str, config: Config, metrics: Metrics, found: Diagnosis, worst: Sequence[PicturedImage] = ()
) -> str:
    """The page as text in ASCII, so that it reads the same in whatever encoding it is written.

    Args:
        run: its name.
        config: the run's.
        metrics: what metrics.json holds: split, images and checkpoint_step, and what
            evaluator.compute_metrics returns.
        found: of the same detections.
        worst: the images to show, the worst first.
    """
    style = importlib.resources.files("ssd_jax.report").joinpath("page.css").read_text(encoding="utf-8")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{run} on {metrics['split']}"),
        tag("style", style),
    )
    sections = (
        _classes(metrics, found),
        _curves(metrics, found),
        _errors(metrics, found, config),
        _confusion(config.model.class_names, found),
        _worst(worst, found),
        _coco(metrics),
        _setup(config, metrics),
    )
    made_by = (
        f"Written by evaluate.py --report of ssd-jax {__version__}. COCO’s numbers and TIDE’s are hotcoco "
        f"{importlib.metadata.version('hotcoco')}’s."
    )
    page = tag(
        "html", head, tag("body", _head(run, metrics, found), tag("main", sections), tag("footer", made_by)), lang="en"
    )
    return "<!DOCTYPE html>\n" + ElementTree.tostring(page, encoding="us-ascii", method="html").decode("ascii") + "\n"


def _section(title: str, about: Sequence[Content], *content: Content, class_: str = "") -> Element:
    """Paragraphs about it beside the content, or above it if class_ is "stacked" or the screen narrow."""
    aside = tag("div", tag("h2", title), (tag("p", paragraph) for paragraph in about), class_="about")
    return tag("section", aside, tag("div", *content, class_="content"), class_=class_)


def _table(header: Sequence[Content], rows: Sequence[Element], class_: str = "") -> Element:
    """In a frame that scrolls where it is too wide."""
    head = tag("thead", tag("tr", (tag("th", cell, scope="col") for cell in header)))
    return tag("div", tag("table", head, tag("tbody", rows), class_=class_), class_="wide")


def _row(name: str, cells: Iterable[Content]) -> Element:
    return tag("tr", tag("th", name, scope="row"), (tag("td", cell) for cell in cells))


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _range(interval: Interval) -> str:
    return f"{interval.low:.3f} to {interval.high:.3f}"


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


def _listed(parts: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))


# ---- head ----

FEW_OBJECTS = 20
"""Of a class with fewer, AP says little; measured on synthetic classes it is also too high on average."""


def _head(run: str, metrics: Metrics, found: Diagnosis) -> Element:
    classes, intervals = metrics["voc_classes"].values(), found.intervals
    objects, ignored = (sum(c[key] for c in classes) for key in ("objects", "ignored_objects"))
    lede = (
        f"{_count(metrics['images'], 'image', 'images')} with {_count(objects, 'object', 'objects')} of "
        f"{_count(len(classes), 'class', 'classes')}"
        + (f", and {ignored:,} more that are ignored, being difficult or crowds" if ignored else "")
        + f". Checkpoint of step {metrics['checkpoint_step']:,}."
    )
    note = (
        f"Intervals are the middle 95 % of {intervals.resamples:,} bootstrap resamples of the images: how far the "
        "number depends on which images happen to be in the split."
    )
    few = sum(0 < c["objects"] < FEW_OBJECTS for c in classes)
    if few:
        note += (
            f" {_count(few, 'class has', 'classes have')} fewer than {FEW_OBJECTS} objects: AP measured on so few "
            "tends to be too high, which no interval tells."
        )
    headlines = (
        _headline(
            "VOC07 mAP, 11-point",
            metrics["voc_map_11point"],
            intervals.map_11point,
            "Best precision at eleven recalls, IoU from 0.5, mean over classes. What tables on VOC2007 state.",
        ),
        _headline(
            "VOC mAP, area",
            metrics["voc_map_area"],
            intervals.map_area,
            "Area under the curve of precision over recall, IoU from 0.5, mean over classes. VOC’s since 2010.",
        ),
        _headline(
            "COCO AP, .50:.95",
            metrics["coco_ap"],
            None,
            "The area again, now the mean over ten IoUs from 0.5 to 0.95: asks for tight boxes, and is lower for it.",
        ),
    )
    return tag(
        "header",
        tag("h1", run, " ", tag("span", f"on {metrics['split']}")),
        tag("p", lede, class_="lede"),
        tag("div", headlines, class_="headlines"),
        tag("p", note, class_="note") if intervals.map_area else None,
    )


def _headline(name: str, value: float | None, interval: Interval | None, protocol: str) -> Element:
    return tag(
        "div",
        tag("h3", name),
        tag("p", _number(value), class_="big"),
        tag("p", f"95 %: {_range(interval)}" if interval else None, class_="interval"),
        tag("p", protocol, class_="note"),
        class_="headline",
    )


# ---- classes ----


def _hardest_first(metrics: Metrics) -> list[tuple[int, str, Any]]:
    """Position, name and numbers of each class by AP; those without objects last."""
    rows = [(i, name, numbers) for i, (name, numbers) in enumerate(metrics["voc_classes"].items())]
    return sorted(rows, key=lambda row: math.inf if row[2]["ap_area"] is None else row[2]["ap_area"])


def _classes(metrics: Metrics, found: Diagnosis) -> Element:
    about: list[Content] = [
        "AP of each class by both of VOC’s measures, the hardest first. Bars are the 95 % intervals of the area."
    ]
    counted = {"objects": "objects", "ignored_objects": "ignored", "detections": "detections"}
    if not any(c["ignored_objects"] for c in metrics["voc_classes"].values()):
        del counted["ignored_objects"]
    rows = []
    for i, name, c in _hardest_first(metrics):
        interval = found.intervals.classes_area[i]
        counts, aps = (f"{c[key]:,}" for key in counted), (_number(c[key]) for key in ("ap_11point", "ap_area"))
        rows.append(_row(name, [*counts, *aps, _range(interval) if interval else "", _scale(c["ap_area"], interval)]))
    header = ("class", *counted.values(), "11-point", "area", "95 % interval", None)
    return _section("Classes", about, _table(header, rows))


def _scale(value: float | None, interval: Interval | None) -> Element | None:
    """A mark and its interval on an axis from 0 to 1."""
    if value is None:
        return None
    low, high = interval or (value, value)
    span = tag("i", style=f"left: {100 * low:.1f}%; width: {100 * (high - low):.1f}%")
    return tag("div", span, tag("b", style=f"left: {100 * value:.1f}%"), class_="scale")


# ---- curves ----

LEFT, TOP, WIDTH, HEIGHT = 22, 6, 170, 116
"""The plane of a curve inside its drawing, in the drawing's own units."""
RIGHT_EDGE, BOTTOM = LEFT + WIDTH, TOP + HEIGHT


def _curves(metrics: Metrics, found: Diagnosis) -> Element:
    about: list[Content] = [
        "Recall, the share of objects found, to the right; precision, the share of detections that are right, upwards. "
        "A detection is right from IoU 0.5 up.",
        "The line is the curve as measured, the ground below it the area that AP measures; the dot, and the numbers "
        f"under the drawing, are what you get at score {diagnosis.SCORE}.",
    ]
    figures, without = [], []
    for i, name, numbers in _hardest_first(metrics):
        curve = found.curves[i]
        if curve is None:
            without.append(name)
            continue
        caption = tag("figcaption", tag("b", name), tag("span", _number(numbers["ap_area"])))
        figures.append(tag("figure", caption, _plot(curve, name), tag("p", _operating_point(curve), class_="note")))
    missing = tag("p", f"Without objects to find, so without a curve: {_listed(without)}.") if without else None
    class_ = "stacked small" if len(figures) > 9 else ""
    return _section("Precision and recall", about, tag("div", figures, class_="curves"), missing, class_=class_)


def _operating_point(curve: Curve) -> str:
    if not curve.shown:
        return f"nothing found at score {diagnosis.SCORE}"
    return f"precision {curve.precision[curve.shown - 1]:.2f}, recall {curve.recall[curve.shown - 1]:.2f}"


def _plot(curve: Curve, name: str) -> Element:
    """Inline SVG, with a name for those who can't see it."""
    axes = []
    for value in (0, 0.5, 1):
        x, y = LEFT + WIDTH * value, BOTTOM - HEIGHT * value
        axes += [
            tag("path", class_="grid", d=f"M{LEFT} {y:g}H{RIGHT_EDGE}"),
            tag("text", f"{value:g}", x=f"{LEFT - 5}", y=f"{y + 3:g}", text_anchor="end"),
            tag("text", f"{value:g}", x=f"{x:g}", y=f"{BOTTOM + 12}", text_anchor="middle"),
        ]
    places = np.column_stack([LEFT + WIDTH * curve.recall, BOTTOM - HEIGHT * curve.precision])
    drawn = []
    if len(places):
        heights = np.minimum.accumulate(places[::-1, 1])[::-1]  # y points down: the best precision to the right
        starts = np.concatenate([[LEFT], places[:-1, 0]])
        steps = np.column_stack([starts, heights, places[:, 0], heights]).reshape(-1, 2)
        drawn = [
            tag("path", class_="ground", d=f"M{LEFT} {BOTTOM}L{_path(steps)}V{BOTTOM}Z"),
            tag("path", class_="line", d=f"M{_path(places)}"),
        ]
    if curve.shown:
        x, y = places[curve.shown - 1]
        drawn.append(tag("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r="3.6"))
    label = f"Precision over recall of {name}"
    return tag("svg", axes, drawn, viewBox=f"0 0 {RIGHT_EDGE + 6} {BOTTOM + 16}", role="img", aria_label=label)


def _path(points: Float[np.ndarray, "p 2"]) -> str:
    """ "x y x y ...", without points that lie within a third of a unit of the one kept before."""
    kept = [points[0]]
    for point in points[1:]:
        if np.abs(point - kept[-1]).max() > 1 / 3:
            kept.append(point)
    return " ".join(f"{x:.1f} {y:.1f}" for x, y in [*kept, points[-1]])


# ---- errors ----

KINDS = {
    "class": (
        "Wrong class",
        "A box that fits an object of another class.",
        "See below what is taken for what, look for wrong labels there, and add pictures of the rarer class.",
    ),
    "location": (
        "Loose box",
        "The right class, but the box overlaps the object by an IoU of only 0.1 to 0.5.",
        "Train longer, take a larger input, and draw boxes by one rule: tight, or always with the same margin.",
    ),
    "both": (
        "Wrong class, loose box",
        "Overlaps an object of another class by an IoU of 0.1 to 0.5.",
        "Mend wrong classes and loose boxes first; much of this goes with them.",
    ),
    "duplicate": (
        "Found twice",
        "Another box on an object that a better one has found.",
        "Suppress more: a lower detect.nms_iou_threshold, now {nms:g}.",
    ),
    "background": (
        "Nothing there",
        "A box where no object is, by IoU below 0.1.",
        "Look among the worst images for objects that nobody annotated; else add pictures with such backgrounds.",
    ),
    "missed": (
        "Missed",
        "An object that nothing was found on, not even of another class or with a loose box.",
        "Small objects want a larger input, rare ones more pictures.",
    ),
}
"""Kind -> its name, what it is, and what to try."""


def _errors(metrics: Metrics, found: Diagnosis, config: Config) -> Element:
    about: list[Content] = [
        [
            "By how much COCO’s AP at IoU 0.5, ",
            tag("b", _number(metrics["coco_ap50"])),
            ", would rise if one kind of error alone were mended, and how many of it there are among all detections, "
            f"from score {config.detect.score_threshold:g} up.",
        ],
        "Many errors of low score cost little. The gains do not add up: what is mended once can’t be mended again.",
        "The method is TIDE (Bolya et al. 2020), computed by hotcoco.",
    ]
    highest = max(0.01, *(error.gain for error in found.tide.values()))
    rows = [tag("li", tag("span", "gain in AP"), tag("em", "errors"), class_="gain note")]
    for kind, error in sorted(found.tide.items(), key=lambda item: -item[1].gain):
        name, what, advice = KINDS[kind]
        head = tag("b", name), tag("span", f"{round(error.gain, 3) + 0:+.3f}"), tag("em", f"{error.errors:,}")
        bar = tag("i", style=f"width: {100 * max(error.gain, 0) / highest:.1f}%")
        text = what, " ", tag("span", advice.format(nms=config.detect.nms_iou_threshold))
        rows.append(tag("li", tag("div", head, class_="gain"), tag("div", bar, class_="bar"), tag("p", text)))
    return _section("What costs most", about, tag("ol", rows, class_="errors"))


# ---- confusion ----

MIX_UPS = 6


def _confusion(names: Sequence[str], found: Diagnosis) -> Element:
    about: list[Content] = [
        "A row for each class that is there, a column for what was found. Of the detections from score "
        f"{diagnosis.SCORE} up, best first, each takes the object that it overlaps most, by IoU {diagnosis.IOU} at "
        "least, whatever its class.",
        "The last column counts objects that were missed, the last row detections where nothing is, or where the "
        "object was found already. Shades are shares of a row.",
    ]
    between = found.confusion[:-1, :-1] * ~np.eye(len(names), dtype=bool)
    worst = [divmod(int(i), len(names)) for i in np.argsort(-between, axis=None, kind="stable")[:MIX_UPS]]
    mixed = [f"{names[i]} for {names[j]} ({_times(int(between[i, j]))})" for i, j in worst if between[i, j]]
    said = (
        f"Most often taken for another class: {_listed(mixed)}." if mixed else "No object was taken for another class."
    )
    class_ = "stacked" if len(names) > 10 else ""
    return _section("What is taken for what", about, _matrix(names, found.confusion), tag("p", said), class_=class_)


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"


def _matrix(names: Sequence[str], matrix: Int64[np.ndarray, "c c"]) -> Element:
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    rows = []
    for i, name in enumerate((*names, "nothing")):
        cells: list[Content] = []
        for j, count in enumerate(matrix[i].tolist()):
            kind, shade = "right" if i == j else "wrong", 0.08 + 0.62 * shares[i, j]
            style = f"background: rgb(var(--{kind}) / {shade:.2f})" if count else ""
            cells.append(tag("div", f"{count:,}" if count else "·", style=style))
        if i == len(names):
            cells[-1] = None
        rows.append(_row(name, cells))
    header: list[Content] = ["there ↓ found →", *(tag("span", name) for name in (*names, "missed"))]
    return _table(header, rows, "matrix upright" if len(names) > 6 else "matrix")


# ---- worst images ----

FAULTS: dict[Fault, str] = {
    "missed": "missed",
    "wrong class": "of the wrong class",
    "found already": "found already",
    "nothing there": "where nothing is",
}


def _worst(worst: Sequence[PicturedImage], found: Diagnosis) -> Element:
    bad = sum(bool(image.faults()) for image in found.images)
    legend = (tag("mark", kind, class_=kind) for kind in ("right", "missed", "wrong", "ignored"))
    about: list[Content] = [
        f"The images with most errors at score {diagnosis.SCORE}: objects missed, and detections of the wrong class, "
        f"on an object found already, or where nothing is. {_count(bad, 'image has', 'images have')} any, "
        f"{len(found.images) - bad:,} none.",
        ["Left what is there, right what was found. ", legend],
    ]
    figures = [_figure(image) for image in worst] or tag("p", "No image has an error.")
    return _section("The worst images", about, figures, class_="stacked")


def _figure(image: PicturedImage) -> Element:
    why = ", ".join(f"{count} {FAULTS[kind]}" for kind, count in image.faults.items())
    objects = tag("em", _count(image.objects, "object", "objects"))
    caption = tag("figcaption", tag("b", image.image_id), tag("span", why), objects)
    if image.truth is None or image.found is None:
        return tag("figure", caption, tag("p", "The image can’t be read.", class_="note"), class_="image")
    pair = (("What is there in ", image.truth), ("What was found in ", image.found))
    pictures = (tag("img", src=_data_uri(jpeg), alt=what + image.image_id) for what, jpeg in pair)
    return tag("figure", caption, tag("div", pictures, class_="pair"), class_="image")


def _data_uri(jpeg: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")


# ---- COCO, setup ----


def _coco(metrics: Metrics) -> Element:
    about: list[Content] = [
        "COCO’s twelve numbers. Small is below 32² pixels, large above 96². Recall is the mean over the ten IoUs. "
        "Objects that VOC calls difficult count like any other here."
    ]
    lines = {
        "AP, IoU .50:.95": ("coco_ap", "coco_ap_small", "coco_ap_medium", "coco_ap_large"),
        "AP, IoU .50": ("coco_ap50",),
        "AP, IoU .75": ("coco_ap75",),
        "Recall, 1 detection an image": ("coco_ar1",),
        "Recall, 10 detections": ("coco_ar10",),
        "Recall, 100 detections": ("coco_ar100", "coco_ar_small", "coco_ar_medium", "coco_ar_large"),
    }
    header = (None, "all", "small", "medium", "large")
    rows = [
        _row(name, [*(_number(metrics[key]) for key in keys), *[None] * (4 - len(keys))])
        for name, keys in lines.items()
    ]
    return _section("COCO", about, _table(header, rows))


def _setup(config: Config, metrics: Metrics) -> Element:
    model, detect = config.model, config.detect
    boxes = model.default_boxes
    facts = {
        "Config": config.name,
        "Checkpoint": f"step {metrics['checkpoint_step']:,} of {config.train.steps:,}",
        "Network": f"{model.image_size} px, {boxes.count:,} default boxes on {len(boxes.feature_maps)} maps",
        "Classes": ", ".join(model.class_names),
        "Data": config.data.root,
        "Detections": f"score above {detect.score_threshold:g}; none that overlaps a better one of its class by more "
        f"than IoU {detect.nms_iou_threshold:g}; at most {detect.max_detections} an image",
        "Bootstrap": "as many images as the split has, drawn from it with replacement; percentiles 2.5 and 97.5; the "
        "same draws each time",
    }
    return _section("What was measured", [], tag("dl", ((tag("dt", k), tag("dd", v)) for k, v in facts.items())))
