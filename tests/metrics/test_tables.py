"""Tests of the text tables: each value must be in the right row and column."""

from ssd_jax.metrics.average_precision import COCO_KEYS
from ssd_jax.metrics.diagnosis import ERRORS, ErrorType, TideError
from ssd_jax.metrics.tables import COCO_LABELS, format_errors, format_metrics, format_voc

RESULT = {
    "voc_map_11point": 0.54547,
    "voc_map_area": None,
    "voc_classes": {
        "ant": {"objects": 2, "detections": 12, "ap_11point": 0.54547, "ap_area": 0.5},
        "07": {"objects": 0, "detections": 1, "ap_11point": None, "ap_area": None},
        "sea lion": {"objects": 1, "detections": 0, "ap_11point": 0.0, "ap_area": 1.0},
    },
}


def test_format_voc_writes_one_row_per_class_and_one_for_all_classes():
    rows = [line.split() for line in format_voc(RESULT).splitlines() if "--" not in line]
    assert rows[1:] == [
        ["ant", "2", "12", "0.5455", "0.5000"],
        ["07", "0", "1", "-", "-"],
        ["sea", "lion", "1", "0", "0.0000", "1.0000"],
        ["all,", "mean", "3", "13", "0.5455", "-"],
    ]


def test_format_voc_without_classes_writes_only_the_row_for_all_classes():
    result = {"voc_map_11point": None, "voc_map_area": None, "voc_classes": {}}
    assert format_voc(result).splitlines()[-1].split() == ["all,", "mean", "0", "0", "-", "-"]


def test_format_metrics_writes_the_twelve_coco_metrics_in_order():
    assert tuple(COCO_LABELS) == COCO_KEYS
    values = [None, *(k / 100 for k in range(1, 12))]
    lines = format_metrics(RESULT | dict(zip(COCO_KEYS, values, strict=True))).splitlines()[-12:]
    assert [line.split()[-1] for line in lines] == ["-", *(f"{value:.4f}" for value in values[1:])]
    assert all(line.startswith(label) for line, label in zip(lines, COCO_LABELS.values(), strict=True))


def test_format_errors_lists_the_costliest_type_first():
    tide = {kind: TideError(0.01 * k, k) for k, kind in enumerate(ERRORS)} | {ErrorType.MISSED: TideError(-1e-9, 7)}
    line = format_errors(tide)
    names = ["background 4 (+0.040)", "duplicate 3 (+0.030)", "both 2 (+0.020)", "localization 1 (+0.010)"]
    assert line.endswith(": " + ", ".join([*names, "classification 0 (+0.000)", "missed 7 (+0.000)"]))
