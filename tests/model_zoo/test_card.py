"""Tests of the model card: its numbers, its metadata, and names that try to break Markdown."""

import itertools
import json
import re

import msgspec
import pytest
import yaml
from helpers.hostile_names import CLASS_NAMES
from markdown_it import MarkdownIt

from ssd_jax import __version__
from ssd_jax.config import Config, Data, Model, Train
from ssd_jax.errors import UserError, escape_text
from ssd_jax.model_zoo.card import Accuracy, CardFacts, describe_data, make_card, read_card_facts
from ssd_jax.runs.data_fingerprint import Fingerprint

METRICS = {
    "split": "test",
    "images": 72,
    "checkpoint_step": 900,
    "voc_map_11point": 0.8714,
    "voc_map_area": 0.9033,
    "voc_iou_threshold": 0.5,
    "voc_classes": {
        "ant": {"objects": 70, "ignored_objects": 0, "detections": 90, "ap_11point": 0.8428, "ap_area": 0.8811},
        "bee": {"objects": 811, "ignored_objects": 2, "detections": 900, "ap_11point": 0.9, "ap_area": 0.9255},
        "cow": {"objects": 0, "ignored_objects": 0, "detections": 0, "ap_11point": None, "ap_area": None},
    },
    "coco_ap": 0.5512,
    "coco_ap50": 0.9012,
    "coco_ap75": 0.6,
    "coco_ar1": 0.1,
    "voc_intervals": {
        "resamples": 1000,
        "map_11point": [0.8411, 0.8999],
        "map_area": [0.8811, 0.9222],
        "classes": {
            "ant": {"ap_11point": [0.7, 0.9], "ap_area": [0.71, 0.95]},
            "bee": {"ap_11point": [0.88, 0.91], "ap_area": [0.9, 0.94]},
            "cow": {"ap_11point": None, "ap_area": None},
        },
    },
}


def make_config(names=("ant", "bee", "cow"), **data) -> Config:
    return Config(
        name="own_data", model=Model(class_names=tuple(names), width=0.25, norm="group"), data=Data(**data),
        train=Train(steps=1200, batch_size=8, seed=5, pretrained="weights/vgg16.pth"),
    )  # fmt: skip


def make_facts(**changes) -> CardFacts:
    facts = CardFacts(
        make_config(root="/data/insects/"),
        900,
        msgspec.convert(METRICS, Accuracy),
        {"train": Fingerprint(292, 4000, "digest")},
        parameters=1_234_567,
    )
    return msgspec.structs.replace(facts, **changes)


def make_test_card(facts: CardFacts, **options) -> str:
    return make_card(facts, **{"name": "cells", "reference": "hf://mia/cells"} | options)


def split_card(card: str) -> tuple[dict, str]:
    """Return the front matter and the Markdown text of a card."""
    start, front_matter, text = card.split("---\n", 2)
    assert start == ""
    return yaml.safe_load(front_matter), text


def read_tables(text: str) -> list[list[str]]:
    """Return the cells of all rows of all tables."""
    rows: list[list[str]] = []
    tokens = MarkdownIt().enable("table").parse(text)
    for token, following in itertools.pairwise(tokens):
        if token.type == "tr_open":
            rows.append([])
        if token.type in ("th_open", "td_open"):
            rows[-1].append("".join(child.content for child in following.children or []))
    return rows


def test_card_shows_the_metrics_with_their_intervals():
    rows = read_tables(split_card(make_test_card(make_facts()))[1])
    assert ["VOC mAP, 11-point, IoU 0.5", "0.871", "0.841 to 0.900"] in rows
    assert ["VOC mAP, area, IoU 0.5", "0.903", "0.881 to 0.922"] in rows
    assert ["COCO AP, IoU 0.50:0.95", "0.551", "-"] in rows
    assert ["ant", "70", "0.843", "0.700 to 0.900", "0.881", "0.710 to 0.950"] in rows
    assert ["bee", "811", "0.900", "0.880 to 0.910", "0.925", "0.900 to 0.940"] in rows
    assert ["cow", "0", "-", "-", "-", "-"] in rows


def test_card_tells_how_the_detector_was_trained_and_how_to_load_it():
    text = split_card(make_test_card(make_facts(), command="ssd-jax train own_data"))[1]
    rows = read_tables(text)
    for row in (
        ["data set", "insects"],
        ["split train", "292 images, 4,000 objects"],
        ["initial weights", "vgg16.pth"],
        ["steps", "900 of 1,200, with 8 images per step"],
        ["parameters", "1,234,567"],
        ["seed", "5"],
        ["program", f"ssd-jax {__version__}"],
    ):
        assert row in rows
    assert "ant, bee, cow" in text and "`ssd-jax train own_data`" in text
    (code,) = [token.content for token in MarkdownIt().parse(text) if token.type == "fence"]
    assert code.splitlines()[1] == 'detector = ssd_jax.load("hf://mia/cells")'
    compile(code, "card", "exec")


def test_front_matter_has_the_metadata_of_the_hub():
    metadata, _ = split_card(make_test_card(make_facts(), license_id="mit"))
    assert metadata["license"] == "mit" and metadata["library_name"] == "ssd-jax"
    assert metadata["pipeline_tag"] == "object-detection" and {"ssd", "jax"} <= set(metadata["tags"])
    (entry,) = metadata["model-index"]
    (result,) = entry["results"]
    assert entry["name"] == "cells" and result["dataset"] == {"name": "insects", "type": "insects", "split": "test"}
    assert [metric["value"] for metric in result["metrics"]] == [0.8714, 0.9033, 0.5512]


def test_card_without_metrics_claims_none():
    metadata, text = split_card(make_test_card(make_facts(accuracy=None, splits={}, parameters=None)))
    assert not {"license", "metrics", "model-index"} & metadata.keys()
    assert "not evaluated" in text and "No license" in text and "mAP" not in text and "![" not in text


def test_card_names_the_picture():
    assert "](detections.jpg)" in make_test_card(make_facts(), picture="detections.jpg")


def test_card_shows_hostile_names_as_they_are():
    classes = {name: METRICS["voc_classes"]["ant"] for name in CLASS_NAMES}
    accuracy = msgspec.convert(METRICS | {"voc_classes": classes, "split": "|[x](y)"}, Accuracy)
    config = make_config(CLASS_NAMES, root="/tmp/---\n# <script>|")
    metadata, text = split_card(make_test_card(make_facts(config=config, accuracy=accuracy), name="a\n# b <i>"))
    escaped = [escape_text(name) for name in CLASS_NAMES]
    rows = [row[0] for row in read_tables(text)]
    start = rows.index("class") + 1
    assert [name.strip() for name in rows[start : start + len(escaped)]] == [name.strip() for name in escaped]
    tokens = MarkdownIt().enable("table").parse(text)
    kinds = {child.type for token in tokens for child in token.children or []}
    assert kinds <= {"text", "text_special", "code_inline", "link_open", "link_close", "softbreak"}
    assert not any(token.type == "html_block" for token in tokens)
    assert metadata["model-index"][0]["name"] == r"a\x0a# b <i>"


@pytest.mark.parametrize(
    ("root", "expected"),
    [
        ("/srv/mia/bccd", "bccd"),
        ("/srv/mia/bccd/", "bccd"),
        (r"C:\Users\mia\bccd", "bccd"),
        ("tfds:voc/2007", "tfds:voc/2007"),
        ("shapes", "shapes (generated images)"),
        ("", "unnamed"),
    ],
)
def test_describe_data_leaves_out_the_folders_of_the_machine(root, expected):
    assert describe_data(Data(root=root)) == expected


# ---- run folders ----


def test_read_card_facts_reads_the_metrics_and_the_splits_of_a_run(tmp_path):
    (tmp_path / "metrics.json").write_text(json.dumps(METRICS))
    (tmp_path / "data.json").write_text('{"train": {"images": 3, "objects": 7, "digest": "00"}}')
    facts = read_card_facts(tmp_path, make_config(), 900)
    assert facts.accuracy is not None and facts.accuracy.voc_intervals.map_area == (0.8811, 0.9222)
    assert facts.splits == {"train": Fingerprint(3, 7, "00")}


def test_read_card_facts_leaves_out_metrics_of_another_checkpoint(tmp_path):
    (tmp_path / "metrics.json").write_text(json.dumps(METRICS))
    assert read_card_facts(tmp_path, make_config(), 901).accuracy is None


def test_read_card_facts_accepts_metrics_without_intervals(tmp_path):
    old = {name: value for name, value in METRICS.items() if name != "voc_intervals"}
    (tmp_path / "metrics.json").write_text(json.dumps(old))
    facts = read_card_facts(tmp_path, make_config(), 900)
    rows = read_tables(split_card(make_test_card(facts))[1])
    assert ["VOC mAP, area, IoU 0.5", "0.903", "-"] in rows
    assert "resamples" not in make_test_card(facts)


@pytest.mark.parametrize("text", ["{", "[]", '{"voc_map_area": "high"}', "\udcff", "[" * 100_000])
def test_read_card_facts_names_a_corrupt_metrics_file(tmp_path, text):
    file = tmp_path / "metrics.json"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match=re.escape(str(file))):
        read_card_facts(tmp_path, make_config(), 900)


def test_read_card_facts_accepts_an_unannotated_split(tmp_path):
    (tmp_path / "metrics.json").write_text('{"split": "test", "images": 3, "checkpoint_step": 900}')
    assert read_card_facts(tmp_path, make_config(), 900).accuracy is None
