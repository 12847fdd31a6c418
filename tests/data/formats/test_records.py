"""Tests of the formats of labelling tools: equal annotations from all of them, and files as people write them.

Each writer below writes the same three images, as the tool of the format does.
"""

import base64
import json
import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.cli import run_command
from PIL import Image

from ssd_jax.config import Data
from ssd_jax.data.formats.open import find_format, open_source, split_names
from ssd_jax.data.problems import Kind, Problems
from ssd_jax.errors import UserError

SIZE = (80, 60)
BOXES = {
    "a.jpg": [("cat", (10, 5, 30, 25)), ("dog", (40, 10, 70, 50))],
    "b c.png": [("cat", (8, 6, 16, 24))],
    "ç.jpg": [],
}
"""Class and xyxy box of each object, by the name of the image."""
SPLITS = {"a.jpg": "train", "b c.png": "train", "ç.jpg": "val"}


def write_images(root: Path, names=BOXES, size=SIZE, format=None):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size).save(root / name, format)


def write(file: Path, content: Any, encoding="utf-8"):
    file.parent.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content)
    file.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))


def corners(box):
    x1, y1, x2, y2 = box
    return [[x1, y1], [x2, y1], [x2, y2], [x1, y2]]


def write_labelme(root: Path, boxes):
    write_images(root, boxes)
    for image, objects in boxes.items():
        shapes = [
            {"label": n, "points": [list(b[2:]), list(b[:2])], "shape_type": "rectangle", "flags": {}, "group_id": None}
            for n, b in objects
        ]
        content = {"version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": f"..\\photos\\{image}"}
        content |= {"imageData": "AAAA" * 50_000, "imageHeight": SIZE[1], "imageWidth": SIZE[0]}
        write((root / image).with_suffix(".json"), content)


def write_cvat(root: Path, boxes):
    write_images(root / "images", boxes)
    labels = "".join(f"<label><name>{n}</name></label>" for n in ("cat", "dog"))
    images = ""
    for k, (image, objects) in enumerate(boxes.items()):
        shapes = "".join(
            f'<box label="{n}" occluded="0" xtl="{b[0]}" ytl="{b[1]}" xbr="{b[2]}" ybr="{b[3]}" z_order="0"></box>'
            for n, b in objects
        )
        images += f'<image id="{k}" name="{image}" width="{SIZE[0]}" height="{SIZE[1]}">{shapes}</image>'
    meta = f"<version>1.1</version><meta><task><labels>{labels}</labels></task></meta>"
    write(root / "annotations.xml", f'<?xml version="1.0" encoding="utf-8"?><annotations>{meta}{images}</annotations>')


def label_studio_value(name, box):
    x1, y1, x2, y2 = (100 * edge / side for edge, side in zip(box, SIZE * 2, strict=True))
    return {"x": x1, "y": y1, "width": x2 - x1, "height": y2 - y1, "rotation": 0, "rectanglelabels": [name]}


def write_label_studio(root: Path, boxes):
    write_images(root, boxes)
    sides = {"original_width": SIZE[0], "original_height": SIZE[1]}
    tasks = []
    for k, (image, objects) in enumerate(boxes.items()):
        result = [
            {"id": f"r{i}", "type": "rectanglelabels", "from_name": "label", "value": label_studio_value(*o), **sides}
            for i, o in enumerate(objects)
        ]
        annotations = [{"id": k, "result": result, "was_cancelled": False}]
        tasks.append({"id": k, "annotations": annotations, "data": {"image": f"/data/upload/7/0a1b2c3d-{image}"}})
    write(root / "project-7-at-2024-01-02.json", tasks)


def write_label_studio_min(root: Path, boxes):
    write_images(root, boxes)
    sides = {"original_width": SIZE[0], "original_height": SIZE[1]}
    tasks = [
        {"image": f"/data/local-files/?d=photos/{image}", "id": 1, "annotator": 1}
        | ({"label": [label_studio_value(*o) | sides for o in objects]} if objects else {})
        for image, objects in boxes.items()
    ]
    write(root / "min.json", tasks)


def via_region(name, box):
    shape = {"name": "rect", "x": box[0], "y": box[1], "width": box[2] - box[0], "height": box[3] - box[1]}
    return {"shape_attributes": shape, "region_attributes": {"class": name}}


def via_entries(boxes, regions_of=list):
    return {
        f"{image}123": {"filename": image, "size": 123, "file_attributes": {}}
        | {"regions": regions_of([via_region(*o) for o in objects])}
        for image, objects in boxes.items()
    }


def write_via(root: Path, boxes):
    write_images(root, boxes)
    write(root / "via_export_json.json", via_entries(boxes))


def write_via_1(root: Path, boxes):
    write_images(root, boxes)
    write(root / "via_region_data.json", via_entries(boxes, lambda own: {str(k): r for k, r in enumerate(own)}))


def write_via_project(root: Path, boxes):
    write_images(root, boxes)
    write(root / "via_project.json", {"_via_settings": {}, "_via_img_metadata": via_entries(boxes)})


def write_via_csv(root: Path, boxes):
    write_images(root, boxes)
    rows = ["filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes"]
    for image, objects in boxes.items():
        for k, entry in enumerate(via_region(*o) for o in objects):
            cells = [json.dumps(entry[key]).replace('"', '""') for key in ("shape_attributes", "region_attributes")]
            rows.append(f'{image},123,"{{}}",{len(objects)},{k},"{cells[0]}","{cells[1]}"')
        if not objects:
            rows.append(f'{image},123,"{{}}",0,0,"{{}}","{{}}"')
    write(root / "via_export_csv.csv", "\n".join(rows))


def write_createml(root: Path, boxes):
    write_images(root, boxes)
    entries = []
    for image, objects in boxes.items():
        annotations = [
            {
                "label": n,
                "coordinates": {"x": (x1 + x2) / 2, "y": (y1 + y2) / 2, "width": x2 - x1, "height": y2 - y1},
            }
            for n, (x1, y1, x2, y2) in objects
        ]
        entries.append({"image": image, "annotations": annotations})
    write(root / "_annotations.createml.json", entries)


def write_supervisely(root: Path, boxes):
    write_images(root / "ds" / "img", boxes)
    write(root / "meta.json", {"classes": [{"title": n, "shape": "rectangle"} for n in ("cat", "dog")], "tags": []})
    for image, objects in boxes.items():
        entries = [
            {"classTitle": n, "geometryType": "rectangle", "points": {"exterior": [b[:2], b[2:]], "interior": []}}
            for n, b in objects
        ]
        content = {"description": "", "tags": [], "size": {"height": SIZE[1], "width": SIZE[0]}, "objects": entries}
        write(root / "ds" / "ann" / f"{image}.json", content)


def write_kitti(root: Path, boxes):
    write_images(root / "image_2", boxes)
    for image, objects in boxes.items():
        lines = [f"{n} 0.00 0 -1.57 {' '.join(map(str, b))} 1.5 1.6 3.7 -2.1 1.7 21.0 -1.6" for n, b in objects]
        write(root / "label_2" / f"{Path(image).stem}.txt", "\n".join(lines))


def write_dota(root: Path, boxes):
    write_images(root / "images", boxes)
    for image, objects in boxes.items():
        lines = [" ".join(str(v) for point in corners(b) for v in point) + f" {n} 0" for n, b in objects]
        write(root / "labelTxt" / f"{Path(image).stem}.txt", "\n".join(lines))


def write_open_images(root: Path, boxes):
    write_images(root / "data", boxes)
    codes = {"cat": "/m/01yrx", "dog": "/m/0bt9lr"}
    write(root / "class-descriptions-boxable.csv", "".join(f"{code},{name}\n" for name, code in codes.items()))
    rows = ["ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf"]
    for image, objects in boxes.items():
        for n, (x1, y1, x2, y2) in objects:
            edges = ",".join(map(str, (x1 / SIZE[0], x2 / SIZE[0], y1 / SIZE[1], y2 / SIZE[1])))
            rows.append(f"{Path(image).stem},xclick,{codes[n]},1,{edges},0,0,0")
    write(root / "annotations-bbox.csv", "\n".join(rows))


def csv_rows(boxes, form):
    return [
        form.format(image=i, w=SIZE[0], h=SIZE[1], name=n, x1=b[0], y1=b[1], x2=b[2], y2=b[3])
        for i, objects in boxes.items()
        for n, b in objects
    ]


HEADER = "filename,width,height,class,xmin,ymin,xmax,ymax"
EIGHT = "{image},{w},{h},{name},{x1},{y1},{x2},{y2}"
SIX = "images/{image},{x1},{y1},{x2},{y2},{name}"


def write_csv(root: Path, boxes):
    write_images(root / "images", boxes)
    write(root / "labels.csv", "\n".join([HEADER, *csv_rows(boxes, EIGHT)]))


def write_csv_without_header(root: Path, boxes):
    write_images(root / "images", boxes)
    write(root / "labels.csv", "\n".join(csv_rows(boxes, EIGHT)))


def write_csv_of_retinanet(root: Path, boxes):
    write_images(root / "images", boxes)
    empty = [f"images/{image},,,,," for image, objects in boxes.items() if not objects]
    write(root / "annotations.csv", "\n".join([*csv_rows(boxes, SIX), *empty]))
    write(root / "classes.csv", "cat,0\ndog,1\n")


def write_csv_of_excel(root: Path, boxes):
    write_images(root, boxes)
    rows = [
        row.replace(".", ",").replace(",jpg", ".jpg").replace(",png", ".png")
        for row in csv_rows(boxes, "{name};{image};{x1}.0;{y1}.0;{x2};{y2}")
    ]
    write(root / "labels.csv", "\r\n".join(["Label;Image;X_min;Y_min;X_max;Y_max", *rows]), "utf-8-sig")


def write_csv_with_sizes(root: Path, boxes):
    write_images(root, boxes)
    rows = [
        f"{k}\t{i}\t{b[0]}\t{b[1]}\t{b[2] - b[0]}\t{b[3] - b[1]}\t{n}"
        for k, (i, (n, b)) in enumerate((i, o) for i, objects in boxes.items() for o in objects)
    ]
    write(root / "labels.csv", "\n".join(["\timage_name\tx\ty\tw\th\tlabel_name", *rows]), "utf-16")


WRITERS: Mapping[str, tuple[Callable[[Path, Any], None], ...]] = {
    "labelme": (write_labelme,),
    "cvat": (write_cvat,),
    "label_studio": (write_label_studio, write_label_studio_min),
    "via": (write_via, write_via_1, write_via_project, write_via_csv),
    "createml": (write_createml,),
    "supervisely": (write_supervisely,),
    "kitti": (write_kitti,),
    "dota": (write_dota,),
    "open_images": (write_open_images,),
    "csv": (
        write_csv,
        write_csv_without_header,
        write_csv_of_retinanet,
        write_csv_of_excel,
        write_csv_with_sizes,
    ),
}
ALL = [pytest.param(form, writer, id=writer.__name__[6:]) for form, writers in WRITERS.items() for writer in writers]
WITHOUT_EMPTY_IMAGES = (
    write_csv,
    write_csv_without_header,
    write_csv_of_excel,
    write_csv_with_sizes,
    write_open_images,
)
"""Writers of formats that cannot state that an image has no objects."""


def read_objects(root: Path, splits=("train", "val"), problems=None):
    """Return the class and box of each object, by the name of the image, of all images of some splits."""
    found = {}
    for split in splits:
        data = Data(root=str(root), val_split="val" if "val" in splits else splits[0])
        source = open_source(data, split, problems=problems or Problems())
        for annotation in source.annotations():
            names = [source.class_names[label - 1] for label in annotation.labels]
            boxes = [tuple(box) for box in annotation.boxes_px.round(3).tolist()]
            found[Path(annotation.file).name] = list(zip(names, boxes, strict=True))
    return found


@pytest.mark.parametrize(("form", "writer"), ALL)
def test_formats_of_labelling_tools_give_equal_annotations(form, writer, tmp_path):
    writer(tmp_path, BOXES)
    assert find_format(Data(root=str(tmp_path))) == form and split_names(Data(root=str(tmp_path))) == ("train", "val")
    problems = Problems()
    expected = {i: o for i, o in BOXES.items() if o or writer not in WITHOUT_EMPTY_IMAGES}
    assert read_objects(tmp_path, problems=problems) == expected
    allowed = {Kind.HELD_OUT, Kind.LAYOUT} | ({Kind.UNANNOTATED} if writer in WITHOUT_EMPTY_IMAGES else set())
    assert {problem.kind for problem in problems.collected} <= allowed, problems.collected


@pytest.mark.parametrize(("form", "writer"), ALL)
def test_splits_are_the_folders_of_the_annotations(form, writer, tmp_path):
    for split in ("train", "val"):
        writer(tmp_path / split, {image: o for image, o in BOXES.items() if SPLITS[image] == split or image == "a.jpg"})
    names = split_names(Data(root=str(tmp_path)))
    assert names == ("train", "val")
    assert {"a.jpg", "b c.png"} == set(read_objects(tmp_path, ["train"]))
    assert read_objects(tmp_path, ["val"])["a.jpg"] == BOXES["a.jpg"]
    files = [a.file for a in open_source(Data(root=str(tmp_path)), "val").annotations()]
    assert all(Path(file).is_relative_to(tmp_path / "val") for file in files), "not the image of the other split"


@pytest.mark.parametrize(("form", "writer"), ALL)
def test_missing_image_is_an_error_that_names_it(form, writer, tmp_path):
    writer(tmp_path, BOXES)
    next(tmp_path.rglob("b c.png")).unlink()
    problems = Problems(raise_errors=False)
    assert "b c.png" not in read_objects(tmp_path, ["train"], problems)
    lost = [p for p in problems.collected if p.kind in (Kind.MISSING, Kind.NO_IMAGE)]
    assert lost and "b c" in lost[0].text
    if form != "open_images":
        with pytest.raises(UserError, match=r"'.*b c.*' is missing"):
            read_objects(tmp_path, ["train"])


@pytest.mark.parametrize(("form", "writer"), ALL)
@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: data * 2])
def test_damaged_file_is_never_a_traceback(form, writer, damage, tmp_path):
    writer(tmp_path, BOXES)
    for file in sorted(tmp_path.rglob("*.*")):
        if file.suffix not in (".jpg", ".png"):
            file.write_bytes(damage(file.read_bytes()))
    try:
        read_objects(tmp_path, problems=Problems(raise_errors=False))
    except UserError as error:
        assert str(tmp_path) in str(error)


def test_split_of_one_table_is_that_of_its_images_or_of_its_column(tmp_path):
    write_images(tmp_path, ["train/a.jpg", "valid/a.jpg", "valid/b.jpg"])
    rows = ["train/a.jpg,1,2,9,9,cat", "valid/a.jpg,1,2,9,9,dog", "valid/b.jpg,1,2,9,9,dog"]
    write(tmp_path / "all.csv", "\n".join(rows))
    assert split_names(Data(root=str(tmp_path))) == ("train", "valid")
    assert read_objects(tmp_path, ["train"]) == {"a.jpg": [("cat", (1, 2, 9, 9))]}
    assert set(read_objects(tmp_path, ["val"])) == {"a.jpg", "b.jpg"}
    write_images(tmp_path / "x", ["a.jpg", "b.jpg"])
    write(
        tmp_path / "x" / "t.csv",
        "image,xmin,ymin,xmax,ymax,class,split\na.jpg,1,2,9,9,cat,test\nb.jpg,1,2,9,9,cat,train",
    )
    assert set(split_names(Data(root=str(tmp_path / "x")))) == {"test", "train", "val"}


def test_tables_named_by_splits_are_splits_and_others_are_told(tmp_path):
    write_images(tmp_path / "images", [f"{k}.jpg" for k in range(4)])
    rows = [f"{k}.jpg,80,60,cat,1,2,9,9" for k in range(4)]
    for name, own in (("train_labels", rows[:2]), ("test_labels", rows[2:]), ("my_labels", rows)):
        write(tmp_path / "data" / f"{name}.csv", "\n".join([HEADER, *own]))
    assert set(split_names(Data(root=str(tmp_path)))) == {"train", "test", "my_labels", "val"}
    assert len(open_source(Data(root=str(tmp_path)), "test")) == 2


def test_wider_face_is_read(tmp_path):
    write_images(tmp_path / "WIDER_train" / "images" / "0--Parade", ["a.jpg", "b.jpg"])
    write_images(tmp_path / "WIDER_val" / "images" / "1--Sport", ["c.jpg"])
    lines = "0--Parade/a.jpg\n2\n10 5 20 15 0 0 0 0 0 0 \n1 2 3 4 2 0 0 1 0 0 \n"
    write(
        tmp_path / "wider_face_split" / "wider_face_train_bbx_gt.txt",
        f"{lines}0--Parade/b.jpg\n0\n0 0 0 0 0 0 0 0 0 0 \n",
    )
    val_file = tmp_path / "wider_face_split" / "wider_face_val_bbx_gt.txt"
    write(val_file, "1--Sport/c.jpg\n1\n1 2 3 4 0 0 0 0 0 0 \n")
    assert find_format(Data(root=str(tmp_path))) == "wider_face"
    source = open_source(Data(root=str(tmp_path)), "train")
    assert source.class_names == ("face",) and len(source) == 2
    assert source.annotation(0).boxes_px.tolist() == [[10, 5, 30, 20], [1, 2, 4, 6]]
    assert source.annotation(0).difficult.tolist() == [False, True] and len(source.annotation(1).labels) == 0
    assert len(open_source(Data(root=str(tmp_path)), "val")) == 1
    write(val_file, "1--Sport/c.jpg\n2\n1 2 3 4 0 0 0 0 0 0 \n")
    with pytest.raises(UserError, match=r"line 1 \(1--Sport/c.jpg\) is followed by 1 faces, but states 2"):
        open_source(Data(root=str(tmp_path)), "val")


# ---- outlines ----


def png_bitmap(width, height):
    header = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", width, height) + b"\1\0\0\0\0"
    return base64.b64encode(zlib.compress(header + b"\0" * 100)).decode()


TURNED = (34.226, 14.226, 55.774, 35.774)
"""Box around the box (35, 20, 55, 30) that is turned by 40 degrees about its centre, rounded."""


def write_outlines_labelme(root):
    shapes = [
        {"label": "cat", "points": [[1, 2], [30, 5], [10, 40]], "shape_type": "polygon"},
        {"label": "cat", "points": [[40, 30], [43, 34]], "shape_type": "circle"},
        {"label": "cat", "points": [[5, 6]], "shape_type": "point"},
    ]
    write(root / "a.json", {"shapes": shapes, "imagePath": "a.jpg"})
    return [(1, 2, 30, 40), (35, 25, 45, 35)]


def write_outlines_cvat(root):
    shapes = '<polygon label="cat" points="1,2;30,5;10,40"/><ellipse label="cat" cx="40" cy="30" rx="5" ry="8"/>'
    shapes += '<box label="cat" xtl="35" ytl="20" xbr="55" ybr="30" rotation="90"/><mask label="cat" left="3" top="4" '
    shapes += 'width="5" height="6" rle="1, 2"/><points label="cat" points="1,2"/>'
    write(root / "a.xml", f'<annotations><image id="0" name="a.jpg">{shapes}</image></annotations>')
    return [(1, 2, 30, 40), (35, 22, 45, 38), (40, 15, 50, 35), (3, 4, 8, 10)]


def write_outlines_via(root):
    shapes = [
        {"name": "polygon", "all_points_x": [1, 30, 10], "all_points_y": [2, 5, 40]},
        {"name": "circle", "cx": 40, "cy": 30, "r": 5},
        {"name": "ellipse", "cx": 40, "cy": 30, "rx": 8, "ry": 5, "theta": np.pi / 2},
        {"name": "point", "cx": 4, "cy": 3},
    ]
    regions = [{"shape_attributes": shape, "region_attributes": {"kind": {"cat": True}}} for shape in shapes]
    write(root / "a.json", {"a.jpg1": {"filename": "a.jpg", "regions": regions, "file_attributes": {}}})
    return [(1, 2, 30, 40), (35, 25, 45, 35), (35, 22, 45, 38)]


def write_outlines_label_studio(root):
    sides = {"original_width": 80, "original_height": 60}

    def region(kind, **value):
        return {"id": str(value), "type": kind, "value": value | {kind: ["cat"]}, **sides}

    results = [
        region("polygonlabels", points=[[1.25, 10], [37.5, 20], [12.5, 50]]),
        region("ellipselabels", x=50, y=50, radiusX=6.25, radiusY=10),
        # A box of 40 x 30 px whose top left corner is at (40, 30), turned by 90 degrees clockwise about this corner.
        region("rectanglelabels", x=50, y=50, width=50, height=50, rotation=90),
        region("keypointlabels", x=1, y=1, width=1),
    ]
    write(root / "a.json", [{"data": {"image": "a.jpg"}, "annotations": [{"result": results}]}])
    return [(1, 6, 30, 30), (35, 24, 45, 36), (10, 30, 40, 70)]


def write_outlines_supervisely(root):
    entries = [
        {"geometryType": "polygon", "points": {"exterior": [[1, 2], [30, 5], [10, 40]]}},
        {"geometryType": "bitmap", "bitmap": {"origin": [7, 9], "data": png_bitmap(20, 10)}},
        {"geometryType": "point", "points": {"exterior": [[1, 2]]}},
    ]
    entries = [entry | {"classTitle": "cat"} for entry in entries]
    write(root / "a.jpg.json", {"size": {"width": 80, "height": 60}, "objects": entries})
    return [(1, 2, 30, 40), (7, 9, 27, 19)]


def write_outlines_dota(root):
    write(root / "a.txt", "imagesource:GoogleEarth\ngsd:0.1\n10 5 20 15 10 25 0 15 cat 1\n")
    return [(0, 5, 20, 25)]


def write_outlines_yolo(root):
    write(root / "classes.txt", "cat\n")
    write(root / "a.txt", "0 0.5 0.1 0.75 0.2 0.5 0.3 0.25 0.2\n")
    return [(20, 6, 60, 18)]


@pytest.mark.parametrize(
    "writer",
    [
        write_outlines_labelme,
        write_outlines_cvat,
        write_outlines_via,
        write_outlines_label_studio,
        write_outlines_supervisely,
        write_outlines_dota,
        write_outlines_yolo,
    ],
)
def test_outlines_become_the_box_around_them_with_a_note(writer, tmp_path):
    write_images(tmp_path, ["a.jpg"])
    expected = writer(tmp_path)
    problems = Problems()
    source = open_source(Data(root=str(tmp_path)), "train", problems=problems)
    np.testing.assert_allclose(source.annotation(0).boxes_px, expected, atol=1e-4)
    kinds = [problem.kind for problem in problems.collected]
    assert kinds.count(Kind.OUTLINES) == 1
    has_points = writer not in (write_outlines_dota, write_outlines_yolo)
    assert kinds.count(Kind.NO_BOX) == has_points, "points are no boxes"


def test_rotated_box_of_cvat_matches_a_rotation_of_its_corners(tmp_path):
    write_images(tmp_path, ["a.jpg"])
    box = '<box label="cat" xtl="35" ytl="20" xbr="55" ybr="30" rotation="40"/>'
    write(tmp_path / "a.xml", f'<annotations><image id="0" name="a.jpg">{box}</image></annotations>')
    turn = np.exp(1j * np.radians(40))  # as complex numbers, with the y axis pointing down
    points = [45 + 25j + complex(x, y) * turn for x in (-10, 10) for y in (-5, 5)]
    expected = [min(p.real for p in points), min(p.imag for p in points)]
    expected += [max(p.real for p in points), max(p.imag for p in points)]
    source = open_source(Data(root=str(tmp_path)), "train")
    np.testing.assert_allclose(source.annotation(0).boxes_px, [expected], atol=1e-4)


# ---- files as people write them ----


def test_table_in_windows_1252_is_read_with_a_warning(tmp_path):
    write_images(tmp_path, ["a.jpg", "b.jpg"])
    write(tmp_path / "labels.csv", f"{HEADER}\na.jpg,80,60,Bär,1,2,9,9\nb.jpg,80,60,Bär,1,2,9,9", "cp1252")
    problems = Problems()
    assert read_objects(tmp_path, problems=problems)["a.jpg"] == [("Bär", (1, 2, 9, 9))]
    assert Kind.OTHER_ENCODING in [problem.kind for problem in problems.collected]


@pytest.mark.parametrize(
    ("row", "kind", "words"),
    [
        ("a.jpg,80,60,cat,9,9,1,2", Kind.SWAPPED, "line 3"),
        ("a.jpg,80,60,cat,-5,2,9,9", Kind.OUT_OF_IMAGE, "line 3"),
        ("a.jpg,80,60,cat,90,2,99,9", Kind.NO_AREA, "line 3"),
        ("a.jpg,80,60,cat,1,2,9,9", Kind.DUPLICATE, "same as line 2"),
        ("a.jpg,80,60,cat,1,2,9,x", Kind.MALFORMED, "line 3 has 'x'"),
        ("a.jpg,80,60,cat,1,2,9,nan", Kind.MALFORMED, "line 3 has 'nan'"),
        ("a.jpg,80,60,,1,2,9,9", Kind.MALFORMED, "line 3 has no class name"),
        ("a.jpg,80,60,cat,1,2,9", Kind.MALFORMED, "line 3 has 7 columns"),
        (",80,60,cat,1,2,9,9", Kind.MALFORMED, "line 3 names no image"),
        ("c.jpg,80,60,cat,1,2,9,9", Kind.MISSING, "'c.jpg' is missing"),
        ("b.jpg,800,600,cat,1,2,9,9", Kind.SIZE_DIFFERS, "800 x 600"),
        ("b.jpg,80,60,cat,.1,.2,.9,.9", Kind.MALFORMED, "normalised"),
    ],
)
def test_mistake_in_a_row_is_told_with_its_line(row, kind, words, tmp_path):
    write_images(tmp_path, ["a.jpg", "b.jpg"])
    write(tmp_path / "labels.csv", f"{HEADER}\na.jpg,80,60,cat,1,2,9,9\n{row}\n")
    problems = Problems(raise_errors=False)
    read_objects(tmp_path, ["train"], problems)
    assert any(problem.kind is kind and words in problem.text for problem in problems.collected), problems.collected


def test_image_with_records_in_two_files_has_the_objects_of_both(tmp_path):
    write_images(tmp_path, ["a.jpg"])
    for name, row in (("one", "a.jpg,80,60,cat,1,2,9,9"), ("two", "a.jpg,80,60,dog,11,12,19,19")):
        write(tmp_path / f"{name}.csv", f"{HEADER}\n{row}\n")
    problems = Problems()
    assert len(read_objects(tmp_path, ["train"], problems)["a.jpg"]) == 2
    assert Kind.JOINED in [problem.kind for problem in problems.collected]


def test_labels_of_dont_care_and_groups_are_told_or_kept_as_crowds(tmp_path):
    write_kitti(tmp_path / "k", {"a.jpg": [("DontCare", (1, 2, 9, 9)), ("Car", (1, 2, 19, 19))]})
    problems = Problems()
    assert read_objects(tmp_path / "k", ["train"], problems) == {"a.jpg": [("Car", (1, 2, 19, 19))]}
    assert [p.text for p in problems.collected if p.kind is Kind.NO_BOX] == ["line 1 (DontCare)"]
    write_open_images(tmp_path / "o", {"a.jpg": [("cat", (1, 2, 9, 9))]})
    file = tmp_path / "o" / "annotations-bbox.csv"
    file.write_text(file.read_text().removesuffix("0") + "1")
    assert open_source(Data(root=str(tmp_path / "o")), "train").annotation(0).crowd.tolist() == [True]


def test_latest_annotation_of_a_label_studio_task_is_used(tmp_path):
    write_images(tmp_path, ["a.jpg", "b.jpg", "c.jpg"])

    def annotation(time, *names, **flags):
        return {"created_at": time, "result": [{"value": label_studio_value(n, (1, 2, 9, 9))} for n in names]} | flags

    tasks = [
        {"data": {"image": "a.jpg"}, "annotations": [annotation("2024", "dog"), annotation("2023", "cat", "cat")]},
        {"data": {"image": "b.jpg"}, "annotations": [annotation("2023", "cat", was_cancelled=True)]},
        {"data": {"image": "c.jpg"}, "annotations": [annotation("2023", "cat")], "predictions": [{"result": [1]}]},
    ]
    write(tmp_path / "x.json", tasks)
    problems = Problems()
    found = read_objects(tmp_path, problems=problems)
    assert found == {"a.jpg": [("dog", (1, 2, 9, 9))], "c.jpg": [("cat", (1, 2, 9, 9))]}
    assert {p.kind for p in problems.collected} >= {Kind.SECOND_VALUE, Kind.UNANNOTATED}


def test_box_and_class_of_a_label_studio_region_may_be_separate(tmp_path):
    write_images(tmp_path, ["a.jpg"])
    value = label_studio_value("", (1, 2, 9, 9))
    del value["rectanglelabels"]
    results = [{"id": "r", "type": "rectangle", "value": value}]
    results += [{"id": "r", "type": "labels", "value": value | {"labels": ["cat"]}}]
    write(
        tmp_path / "x.json",
        [
            {"data": {"url": "s3://b/a.jpg?x=1"}, "annotations": [{"result": results}]},
        ],
    )
    write(tmp_path / "x.json", (tmp_path / "x.json").read_text().replace('"type"', '"from_name": "l", "type"'))
    assert read_objects(tmp_path, ["train"]) == {"a.jpg": [("cat", (1, 2, 9, 9))]}


def test_subsets_flags_and_class_order_of_cvat_are_read(tmp_path):
    write_images(tmp_path, ["a.jpg", "b.jpg"])
    names = "".join(f"<label><name>{n}</name></label>" for n in ("zebra", "ant", "unused"))
    box = '<box label="{}" xtl="1" ytl="2" xbr="9" ybr="9"><attribute name="difficult">true</attribute></box>'
    images = f'<image name="a.jpg" subset="Train">{box.format("ant")}</image>'
    images += f'<image name="b.jpg" subset="Validation">{box.format("zebra")}</image>'
    write(tmp_path / "x.xml", f"<annotations><meta><task><labels>{names}</labels></task></meta>{images}</annotations>")
    source = open_source(Data(root=str(tmp_path)), "train")
    assert source.class_names == ("zebra", "ant", "unused") and source.annotation(0).difficult.tolist() == [True]
    assert split_names(Data(root=str(tmp_path))) == ("Train", "Validation")


def test_regions_without_attributes_are_of_the_class_object(tmp_path):
    write_images(tmp_path, ["a.jpg"])
    entry = via_region("", (1, 2, 9, 9)) | {"region_attributes": {}}
    write(tmp_path / "v.json", {"a": {"filename": "a.jpg", "regions": [entry], "file_attributes": {}}})
    problems = Problems()
    assert read_objects(tmp_path, ["train"], problems) == {"a.jpg": [("object", (1, 2, 9, 9))]}
    assert any("'object'" in p.text for p in problems.collected if p.kind is Kind.LAYOUT)


def test_annotations_without_an_image_of_their_own_folder_are_matched_by_the_closest(tmp_path):
    write_images(tmp_path, ["one/img/a.jpg", "two/img/a.jpg"])
    for place, name in (("one", "cat"), ("two", "dog")):
        shapes = [{"label": name, "points": [[1, 2], [9, 9]], "shape_type": "rectangle"}]
        write(tmp_path / place / "ann" / "a.json", {"shapes": shapes, "imagePath": "a.jpg"})
    sources = [open_source(Data(root=str(tmp_path)), split) for split in ("train", "val")]
    found = {a.file: source.class_names[a.labels[0] - 1] for source in sources for a in source.annotations()}
    assert found == {str(tmp_path / "one/img/a.jpg"): "cat", str(tmp_path / "two/img/a.jpg"): "dog"}


def test_single_annotation_file_is_accepted_as_root(tmp_path):
    write_cvat(tmp_path, BOXES)
    assert set(read_objects(tmp_path / "annotations.xml")) == set(BOXES)


def test_deeply_nested_and_expanding_files_are_refused(tmp_path):
    write_images(tmp_path, ["a.jpg"])
    write(tmp_path / "a.json", '{"imagePath": "a.jpg", "shapes": [' + '{"points": ' + "[" * 100_000)
    with pytest.raises(UserError):
        open_source(Data(root=str(tmp_path)), "train")
    (tmp_path / "a.json").unlink()
    entities = "".join(f'<!ENTITY e{k} "{f"&e{k - 1};" * 10}">' for k in range(1, 12))
    write(
        tmp_path / "a.xml", f'<!DOCTYPE a [<!ENTITY e0 "x">{entities}]><annotations><image name="&e11;"/></annotations>'
    )
    with pytest.raises(UserError):
        open_source(Data(root=str(tmp_path)), "train")


def test_check_data_accepts_a_format_by_its_folder_alone(tmp_path, capsys):
    write_labelme(tmp_path / "set", BOXES)
    assert run_command("check-data", "own_data", "--data.root", tmp_path / "set", "--out", tmp_path / "out") in (0, 1)
    assert "labelme" not in capsys.readouterr().out.lower(), "it is read as any other format"
    counts = json.loads((tmp_path / "out" / "check.json").read_text())["splits"]
    assert sum(sum(split["objects"].values()) for split in counts.values()) == 3
