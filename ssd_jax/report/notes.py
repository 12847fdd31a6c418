"""Notes of the report page: how far a result can be trusted, and what to add to the data or to do next."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from ssd_jax.data.source import Annotation
from ssd_jax.plurals import format_count
from ssd_jax.report.run_facts import RunFacts

FEW_IMAGES = 50
"""Number of images below which a split says little about other images."""
EASY_MAP = 0.25
"""mAP of a constant box from which a split counts as easy."""
EARLY_SHARE = 0.02
"""Share of the objects that are found below which a network counts as one that finds nothing yet."""
WEAK_MAP = 0.3
"""mAP below which more training is advised before the annotations are doubted."""

State = Literal["nothing", "weak", "usable"]
"""State of a network: it finds hardly any object with a score of at least 0.5, few objects, or more of them."""


class Note(NamedTuple):
    """A note about a result."""

    title: str
    text: str


def choose_state(objects: int, found: int, mean_ap: float | None) -> State:
    """Return the state of a network, on which the advice depends.

    Args:
        objects: Number of objects, without ignored ones.
        found: Number of these objects with a correct detection that has a score of at least 0.5.
        mean_ap: VOC's mAP by area.
    """
    if objects and found < EARLY_SHARE * objects:
        return "nothing"
    return "weak" if mean_ap is not None and mean_ap < WEAK_MAP else "usable"


def make_notes(
    state: State, found: int, metrics: Mapping[str, Any], annotations: Sequence[Annotation], facts: RunFacts
) -> list[Note]:
    """Return the notes about a result, the most important first.

    Args:
        state: State of the network.
        found: Number of objects that are found with a score of at least 0.5.
        metrics: Content of metrics.json.
        annotations: Annotations of the measured split.
        facts: Facts about the run.
    """
    objects = sum(entry["objects"] for entry in metrics["voc_classes"].values())
    notes = [
        _describe_early_state(state, found, objects, metrics["checkpoint_step"]),
        _describe_use(facts, metrics["split"]),
        _describe_size(len(annotations)),
        _describe_empty_images(annotations),
        _describe_constant_box(metrics),
    ]
    return [note for note in notes if note is not None]


def _describe_early_state(state: State, found: int, objects: int, step: int) -> Note | None:
    if state != "nothing":
        return None
    have = "object has" if objects == 1 else "objects have"
    return Note(
        "The network finds nothing yet",
        f"{found:,} of {objects:,} {have} a correct detection with a score of at least 0.5 after {step:,} steps; only "
        "the mAP counts lower scores, too. This is normal early in a training, and says nothing "
        "about the annotations. Train longer, or start from trained weights, as the config own_data_from_coco does. If "
        "the loss has not fallen, look at the boxes in train_batch.jpg of the run, and try half the learning rate.",
    )


def _describe_use(facts: RunFacts, split: str) -> Note | None:
    if facts.use == "trained":
        return Note(
            "The network was trained on these images",
            f"It has seen the objects of {split} with their boxes. The metrics say how well it has learned them, and "
            "not how well it will find others. Measure on images that were not used for training.",
        )
    if facts.use == "selected":
        return Note(
            "The checkpoint was chosen on these images",
            f"It is the best of {format_count(facts.evaluations, 'evaluations')} on {split}, so its metrics tend to be "
            "a little too high. For a number to publish, measure once on a test split that was used for nothing else.",
        )
    return None


def _describe_size(images: int) -> Note | None:
    if images >= FEW_IMAGES:
        return None
    return Note(
        f"The split has only {format_count(images, 'images')}",
        "A few other images could have given another result, and images of the same place or day are alike. Add images "
        f"until there are at least {FEW_IMAGES}, and better some hundred, from the places where the detector will be "
        "used.",
    )


def _describe_empty_images(annotations: Sequence[Annotation]) -> Note | None:
    if not annotations or any(len(annotation.labels) == 0 for annotation in annotations):
        return None
    return Note(
        "No image is without objects",
        "The metrics do not show what the detector finds where there is nothing, and it may find an object in "
        "everything that is alike. Add images without objects, above all of things that could be mistaken for one, "
        "with an empty annotation, and some of them to the train split, with the option loss.min_negatives at 3.",
    )


def _describe_constant_box(metrics: Mapping[str, Any]) -> Note | None:
    constant = metrics.get("constant_box")
    mean_ap = constant and constant["voc_map_area"]
    if not mean_ap or mean_ap < EASY_MAP:
        return None
    return Note(
        "The objects are easy to place",
        f"The mean box of each class, drawn in every image without looking at it, reaches an mAP of {mean_ap:.3f}. "
        "Most objects have about the same place and size, so the mAP of the detector says little about other images. "
        "Add images with small objects, several objects, and objects at the edges.",
    )
