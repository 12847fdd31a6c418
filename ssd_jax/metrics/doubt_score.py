"""Scores of doubts: estimates of the probability that an annotation is wrong, on one scale for all kinds of doubts.

Nobody knows which annotations are wrong, so the estimates follow from the disagreements themselves. At high detection
scores, the detector is almost always right, and its disagreements show how often annotations are wrong; at low scores,
it is mostly the detector that is wrong. `score_findings` turns this into a probability, by class and score.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64
from scipy.optimize import isotonic_regression

SUREST = 0.25
"""Number of the detections of a class, best first, that are taken as right, relative to the number of those that the
annotation agrees with."""
FEWEST_SUREST = 20
"""Minimum number of detections of a class that are taken as right, if the class has as many."""
POOLED = 20.0
"""Weight of all detections of a split in the precision of each class, in detections. It matters for rare classes."""
PRIOR = 0.01
"""Share of boxes that are assumed to be empty, and share that are assumed to be loose, before anything is known. The
detections do not show these shares, because an object that is hard to find looks like an empty box. Where more boxes
are wrong, their scores are too low, but in the right order."""
COMPARED = 400
"""Number of boxes, of the same group and of the most similar areas, that a box is compared with."""


class Finding(NamedTuple):
    """A detection, and how it compares with the annotation."""

    score: float
    """Score of the detection."""
    label: int
    """Label of the detection."""
    kind: str
    """Kind of the disagreement. Empty if the annotation agrees."""


def score_findings(findings: Sequence[Finding]) -> Float64[np.ndarray, " n"]:
    """Return, for each detection, the probability that the annotation is wrong if it disagrees with the detection.

    Let g be the share of detections that the annotation agrees with, as a function of class and score, and c this share
    among the surest detections of the class. If the surest detections are right, annotations agree with a share c of
    what is right. A detection is then right with probability g / c, and of the detections that the annotation disagrees
    with, the share (1 - c) / c * g / (1 - g) is right. This is the correction of Elkan and Noto for examples of which
    only a part is labelled.

    The result is this share, times the score of the detection, times a factor for the kind: how much more frequent the
    kind is among the disagreements of the surest detections than among all disagreements.

    Args:
        findings: All detections of a split from a low score up, without those on ignored objects.

    References:
        Elkan and Noto, "Learning Classifiers from Only Positive and Unlabeled Data", KDD 2008, section 2.
    """
    scores = np.array([f.score for f in findings], np.float64)
    labels = np.array([f.label for f in findings], np.int32)
    kinds = np.array([f.kind for f in findings], str)
    agrees = kinds == ""
    shares, surest = np.zeros(len(findings)), np.zeros(len(findings), bool)
    for label in np.unique(labels).tolist():
        own = np.flatnonzero(labels == label)
        best_first = own[np.argsort(-scores[own], kind="stable")]
        top = best_first[: max(FEWEST_SUREST, round(SUREST * agrees[own].sum()))]
        surest[top] = True
        agreed_top = (agrees[top].sum() + 0.5) / (len(top) + 1)  # Jeffreys' estimate, which is never 0 or 1
        agreed = np.clip(_fit_agreement(scores, agrees, own), 0, agreed_top)
        shares[own] = (1 - agreed_top) / agreed_top * agreed / (1 - agreed)
    factors = np.ones(len(findings))
    for kind in np.unique(kinds[~agrees]).tolist():
        factors[kinds == kind] = _compute_kind_factor(kinds == kind, surest, ~agrees)
    return np.minimum(shares * factors, 1) * scores


def _fit_agreement(
    scores: Float64[np.ndarray, " n"], agrees: Bool[np.ndarray, " n"], own: Int64[np.ndarray, " m"]
) -> Float64[np.ndarray, " m"]:
    """Return the share of detections that the annotation agrees with at the scores of the detections of a class.

    The share never falls when the score rises.

    Args:
        scores: Scores of the detections of all classes.
        agrees: Whether the annotation agrees with each detection.
        own: Positions of the detections of the class.
    """
    weights = np.full(len(scores), POOLED / len(scores))
    weights[own] += 1
    _, position = np.unique(scores, return_inverse=True)
    total = np.bincount(position, weights)
    agreed = np.bincount(position, weights * agrees) / total
    return isotonic_regression(agreed, weights=total).x[position][own]


def _compute_kind_factor(
    of_kind: Bool[np.ndarray, " n"], surest: Bool[np.ndarray, " n"], disagrees: Bool[np.ndarray, " n"]
) -> float:
    """Return the share of a kind among the disagreements of the surest detections, relative to all disagreements.

    With few sure disagreements, the factor is close to 1.
    """
    share = of_kind.sum() / disagrees.sum()
    sure = (disagrees & surest).sum()
    return float(((of_kind & surest).sum() + FEWEST_SUREST * share) / (sure + FEWEST_SUREST) / share)


def score_unusual_boxes(
    groups: Int32[np.ndarray, " g"],
    areas: Float64[np.ndarray, " g"],
    values: Float64[np.ndarray, " g"],
    wrong_values: Float64[np.ndarray, " w"],
) -> Float64[np.ndarray, " g"]:
    """Return, for each box, the probability that it is wrong because an unusually low value was measured for it.

    A box is compared with the `COMPARED` boxes of its group whose areas are most similar, itself included. If a share q
    of them has at most its value, a right box has such a value with probability q, and the result follows from Bayes'
    rule with the share `PRIOR` of wrong boxes, of which a share r has at least this value. Boxes of a group and size
    for which low values are usual thus have a low probability.

    The estimate is cautious: q also counts wrong boxes, and the share of wrong boxes stays `PRIOR` however many boxes
    have low values. A lower value never gives a lower probability, so that the order does not depend on `PRIOR`.

    Args:
        groups: Number of the group of each box, such as its label.
        areas: Area of each box.
        values: What was measured, such as the best score of the detections on each box.
        wrong_values: The same, measured for boxes that are known to be wrong. If there are none, r is 1.
    """
    result = np.zeros(len(groups))
    higher = len(wrong_values) - np.searchsorted(np.sort(wrong_values), values, side="left")
    priors = PRIOR * (higher + 1) / (len(wrong_values) + 1)
    for group in np.unique(groups).tolist():
        own = np.flatnonzero(groups == group)
        own = own[np.argsort(areas[own], kind="stable")]
        for position, box in enumerate(own.tolist()):
            start = max(0, min(position - COMPARED // 2, len(own) - COMPARED))
            share = np.mean(values[own[start : start + COMPARED]] <= values[box])
            result[box] = priors[box] / (priors[box] + (1 - PRIOR) * share)
    return result


def score_duplicates(iou: Float64[np.ndarray, " p"], agreed: Float64[np.ndarray, " m"]) -> Float64[np.ndarray, " p"]:
    """Return, for each pair of boxes, how sure it is that both are on the same object.

    Args:
        iou: IoU of the two boxes of each pair.
        agreed: IoU of each detection with the object that it agrees with: how well two boxes of one object agree.

    Returns:
        The share of the values of ``agreed`` that are at most the IoU of the pair. Without values, 0.5.
    """
    below = np.searchsorted(np.sort(agreed), iou, side="right")
    return (below + 1) / (len(agreed) + 2)
