"""Write small data sets in the formats of labelling tools, as the tools do, for tests.

All writers take the folder, and the class and xyxy box of each object by the name of the image.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

SIZE = (80, 60)
BOXES = {
    "a.jpg": [("cat", (10, 5, 30, 25)), ("dog", (40, 10, 70, 50))],
    "b c.png": [("cat", (8, 6, 16, 24))],
    "ç.jpg": [],
}
"""Class and xyxy box of each object, by the name of the image."""


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


def write_coco(root: Path, boxes):
    write_images(root / "images", boxes)
    names = sorted({n for objects in boxes.values() for n, _ in objects})
    content: dict[str, Any] = {"categories": [{"id": k, "name": n} for k, n in enumerate(names, 1)]}
    content |= {"images": [], "annotations": []}
    for number, (image, objects) in enumerate(boxes.items(), start=1):
        content["images"].append({"id": number, "file_name": image, "width": SIZE[0], "height": SIZE[1]})
        for n, (x1, y1, x2, y2) in objects:
            entry = {"id": len(content["annotations"]) + 1, "image_id": number, "category_id": names.index(n) + 1}
            content["annotations"].append(entry | {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)})
    write(root / "annotations.json", content)


def write_wider_face(root: Path, boxes):
    """Write faces, whatever the classes are."""
    write_images(root / "images" / "0--Parade", boxes)
    lines = []
    for image, objects in boxes.items():
        faces = [f"{x1} {y1} {x2 - x1} {y2 - y1} 0 0 0 0 0 0 " for _, (x1, y1, x2, y2) in objects]
        lines += [f"0--Parade/{image}", str(len(faces)), *(faces or ["0 0 0 0 0 0 0 0 0 0 "])]
    write(root / "wider_face_bbx_gt.txt", "\n".join(lines) + "\n")


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
WITHOUT_EMPTY_IMAGES = (
    write_csv,
    write_csv_without_header,
    write_csv_of_excel,
    write_csv_with_sizes,
    write_open_images,
)
"""Writers of formats that cannot state that an image has no objects."""
