"""Tests of the default boxes against known numbers (published configs) and against nested loops (other configs).

Unless noted, the numbers were computed in float64 from the formulas of Caffe's PriorBox layer (weiliu89/caffe, branch
ssd, commit 4817bf8b). The numbers of SSD300 for COCO agree with torchvision 0.29.1.
"""

import dataclasses

import numpy as np
import pytest
from helpers import reference

from ssd_jax import config
from ssd_jax.ops.boxes import cxcywh_to_xyxy
from ssd_jax.ops.default_boxes import make_default_boxes

SSD300_VOC = config.SSD300_VOC_BOXES
SSD300_COCO = config.SSD300_COCO_BOXES
SSD512_VOC = config.SSD512_VOC_BOXES
SSD512_COCO = config.SSD512_COCO_BOXES
SSD512_VOC_TRUNCATED = dataclasses.replace(SSD512_VOC, truncate_sizes=True)
SSD512_COCO_TRUNCATED = dataclasses.replace(SSD512_COCO, truncate_sizes=True)
# Boxes of Caffe's examples/ssd/ssd_pascal.py as first published in 2016, with global pooling for the sixth map.
ORIGINAL_SSD300 = config.DefaultBoxes(
    min_sizes=(30, 60, 114, 168, 222, 276),
    max_sizes=(None, 114, 168, 222, 276, 330),
    aspect_ratios=((2,), (2, 3), (2, 3), (2, 3), (2, 3), (2, 3)),
    steps=None,
    clip="corners",
)

# Index, cx, cy, (w, h) for VOC, (w, h) for COCO.
KNOWN_SSD300_BOXES = [
    (0, 0.013333, 0.013333, (0.100000, 0.100000), (0.070000, 0.070000)),
    (1, 0.013333, 0.013333, (0.141421, 0.141421), (0.102470, 0.102470)),
    (2, 0.013333, 0.013333, (0.141421, 0.070711), (0.098995, 0.049497)),
    (3, 0.013333, 0.013333, (0.070711, 0.141421), (0.049497, 0.098995)),
    (2888, 0.013333, 0.520000, (0.100000, 0.100000), (0.070000, 0.070000)),
    (5775, 1.000000, 1.000000, (0.070711, 0.141421), (0.049497, 0.098995)),
    (5776, 0.026667, 0.026667, (0.200000, 0.200000), (0.150000, 0.150000)),
    (6859, 0.506667, 0.506667, (0.141421, 0.282843), (0.106066, 0.212132)),
    (7941, 0.986667, 0.986667, (0.115470, 0.346410), (0.086603, 0.259808)),
    (7942, 0.053333, 0.053333, (0.370000, 0.370000), (0.330000, 0.330000)),
    (8541, 1.013333, 1.013333, (0.213620, 0.640859), (0.190526, 0.571577)),
    (8542, 0.106667, 0.106667, (0.540000, 0.540000), (0.510000, 0.510000)),
    (8691, 0.960000, 0.960000, (0.311769, 0.935307), (0.294449, 0.883346)),
    (8692, 0.166667, 0.166667, (0.710000, 0.710000), (0.690000, 0.690000)),
    (8710, 0.500000, 0.500000, (1.004092, 0.502046), (0.975807, 0.487904)),
    (8727, 0.833333, 0.833333, (0.502046, 1.004092), (0.487904, 0.975807)),
    (8728, 0.500000, 0.500000, (0.880000, 0.880000), (0.870000, 0.870000)),
    (8729, 0.500000, 0.500000, (0.961249, 0.961249), (0.955772, 0.955772)),
    (8730, 0.500000, 0.500000, (1.244508, 0.622254), (1.230366, 0.615183)),
    (8731, 0.500000, 0.500000, (0.622254, 1.244508), (0.615183, 1.230366)),
]
# Index, cx = cy, (w, h) for VOC with truncated sizes, VOC, COCO with truncated sizes, COCO.
KNOWN_SSD512_BOXES = [
    (0, 0.007812, (0.068359, 0.068359), (0.070000, 0.070000), (0.039062, 0.039062), (0.040000, 0.040000)),
    (1, 0.007812, (0.100733, 0.100733), (0.102470, 0.102470), (0.062378, 0.062378), (0.063246, 0.063246)),
    (2, 0.007812, (0.096675, 0.048337), (0.098995, 0.049497), (0.055243, 0.027621), (0.056569, 0.028284)),
    (16383, 0.992188, (0.048337, 0.096675), (0.049497, 0.098995), (0.027621, 0.055243), (0.028284, 0.056569)),
    (16384, 0.015625, (0.148438, 0.148438), (0.150000, 0.150000), (0.099609, 0.099609), (0.100000, 0.100000)),
    (22527, 0.984375, (0.085700, 0.257101), (0.086603, 0.259808), (0.057509, 0.172528), (0.057735, 0.173205)),
    (22528, 0.031250, (0.298828, 0.298828), (0.300000, 0.300000), (0.259766, 0.259766), (0.260000, 0.260000)),
    (24063, 0.968750, (0.172528, 0.517585), (0.173205, 0.519615), (0.149976, 0.449927), (0.150111, 0.450333)),
    (24064, 0.062500, (0.449219, 0.449219), (0.450000, 0.450000), (0.419922, 0.419922), (0.420000, 0.420000)),
    (24447, 0.937500, (0.259357, 0.778070), (0.259808, 0.779423), (0.242442, 0.727326), (0.242487, 0.727461)),
    (24448, 0.125000, (0.599609, 0.599609), (0.600000, 0.600000), (0.578125, 0.578125), (0.580000, 0.580000)),
    (24543, 0.875000, (0.346185, 1.038554), (0.346410, 1.039230), (0.333781, 1.001342), (0.334863, 1.004589)),
    (24544, 0.250000, (0.750000, 0.750000), (0.750000, 0.750000), (0.738281, 0.738281), (0.740000, 0.740000)),
    (24560, 0.500000, (0.898438, 0.898438), (0.900000, 0.900000), (0.898438, 0.898438), (0.900000, 0.900000)),
    (24563, 0.500000, (0.635291, 1.270582), (0.636396, 1.272792), (0.635291, 1.270582), (0.636396, 1.272792)),
]


def find_boxes_changed_by_clip(box_config: config.DefaultBoxes, clip: str) -> np.ndarray:
    """Return the indices of the default boxes that the clip mode changes."""
    before, after = make_default_boxes(box_config), make_default_boxes(dataclasses.replace(box_config, clip=clip))
    return np.flatnonzero((before != after).any(axis=1))


@pytest.mark.parametrize(("box_config", "column"), [(SSD300_VOC, 3), (SSD300_COCO, 4)])
def test_make_default_boxes_matches_known_boxes_of_ssd300(box_config, column):
    boxes = make_default_boxes(box_config)
    for row in KNOWN_SSD300_BOXES:
        np.testing.assert_allclose(boxes[row[0]], [*row[1:3], *row[column]], atol=6e-7, err_msg=f"row {row[0]}")


@pytest.mark.parametrize(
    ("box_config", "column"), [(SSD512_VOC_TRUNCATED, 2), (SSD512_VOC, 3), (SSD512_COCO_TRUNCATED, 4), (SSD512_COCO, 5)]
)
def test_make_default_boxes_matches_known_boxes_of_ssd512(box_config, column):
    boxes = make_default_boxes(box_config)
    for row in KNOWN_SSD512_BOXES:
        np.testing.assert_allclose(boxes[row[0]], [row[1], row[1], *row[column]], atol=6e-7, err_msg=f"row {row[0]}")


@pytest.mark.parametrize(
    ("box_config", "per_map"),
    [
        (SSD300_VOC, (5776, 2166, 600, 150, 36, 4)),
        (SSD512_COCO, (16384, 6144, 1536, 384, 96, 16, 4)),
        (ORIGINAL_SSD300, (4332, 2166, 600, 150, 54, 6)),  # 3 boxes per cell, then 6
    ],
)
def test_boxes_per_map_has_known_values(box_config, per_map):
    assert box_config.boxes_per_map == per_map


@pytest.mark.parametrize(
    ("box_config", "count", "center_sum", "size_sum"),
    [
        (SSD300_VOC, 8732, 4443.946667, 1510.429285),
        (SSD300_COCO, 8732, 4443.946667, 1172.198034),
        (SSD512_VOC_TRUNCATED, 24564, 12282, 3105.554454),
        (SSD512_VOC, 24564, 12282, 3146.141697),
        (SSD512_COCO_TRUNCATED, 24564, 12282, 2173.682012),
        (SSD512_COCO, 24564, 12282, 2192.471071),
    ],
)
def test_make_default_boxes_returns_known_counts_and_sums(box_config, count, center_sum, size_sum):
    boxes = make_default_boxes(box_config)
    assert boxes.shape == (count, 4) and boxes.dtype == np.float32 and box_config.count == count
    sums = boxes.sum(axis=0, dtype=np.float64)
    np.testing.assert_allclose(sums, [center_sum] * 2 + [size_sum] * 2, rtol=1e-7)


@pytest.mark.parametrize(
    ("box_config", "num_outside"), [(SSD300_VOC, 2869), (SSD300_COCO, 2223), (SSD512_VOC, 5486), (SSD512_COCO, 4118)]
)
def test_make_default_boxes_returns_a_known_number_of_boxes_outside_the_image(box_config, num_outside):
    corners = np.asarray(cxcywh_to_xyxy(make_default_boxes(box_config)))
    # Rounding to float32 moves some edges from the border slightly beyond it.
    assert ((corners < -1e-6) | (corners > 1 + 1e-6)).any(axis=1).sum() == num_outside


def test_clip_mode_sizes_gives_the_default_boxes_of_torchvision():
    """The clip mode changes only the sizes of two boxes. The corners in pixels come from torchvision 0.29.1."""
    np.testing.assert_array_equal(find_boxes_changed_by_clip(SSD300_COCO, "sizes"), [8730, 8731])
    boxes = np.asarray(cxcywh_to_xyxy(make_default_boxes(dataclasses.replace(SSD300_COCO, clip="sizes")))) * 300
    expected = {
        0: (-6.5, -6.5, 14.5, 14.5),
        1: (-11.370427, -11.370427, 19.370426, 19.370426),
        5776: (-14.5, -14.5, 30.5, 30.5),
        8728: (19.5, 19.5, 280.5, 280.5),
        8730: (0, 57.72257, 300, 242.27744),
        8731: (57.72257, 0, 242.27744, 300),
    }
    for index, corners in expected.items():
        np.testing.assert_allclose(boxes[index], corners, atol=4e-5)
    # Centres beyond the border are not clipped.
    assert make_default_boxes(dataclasses.replace(SSD300_COCO, clip="sizes"))[8541, 0] > 1.01


@pytest.mark.parametrize(
    ("box_config", "num_clipped_sizes", "num_clipped_centers"),
    [(SSD300_VOC, 20, 114), (SSD300_COCO, 2, 114), (SSD512_VOC, 42, 0)],
)
def test_clip_mode_center_size_changes_as_many_boxes_as_ssd_pytorch(box_config, num_clipped_sizes, num_clipped_centers):
    changed = find_boxes_changed_by_clip(box_config, "center_size")
    boxes = make_default_boxes(box_config)[changed]
    assert (boxes[:, 2:] > 1).any(axis=1).sum() == num_clipped_sizes
    assert (boxes[:, :2] > 1).any(axis=1).sum() == num_clipped_centers
    assert len(changed) == num_clipped_sizes + num_clipped_centers
    clipped = make_default_boxes(dataclasses.replace(box_config, clip="center_size"))
    assert clipped.min() >= 0 and clipped.max() <= 1


def test_clip_mode_corners_clips_at_the_image_border():
    box_config = config.DefaultBoxes(
        image_size=10,
        feature_maps=(2,),
        min_sizes=(8,),
        max_sizes=(None,),
        aspect_ratios=((),),
        steps=None,
        clip="corners",
    )
    # Centres are at .25 and .75, and the side is .8: before clipping, (-.15, -.15, .65, .65) and its mirror images.
    expected = [(0, 0, 0.65, 0.65), (0.35, 0, 1, 0.65), (0, 0.35, 0.65, 1), (0.35, 0.35, 1, 1)]
    np.testing.assert_allclose(cxcywh_to_xyxy(make_default_boxes(box_config)), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("box_config", "count", "first", "last"),
    [
        (
            config.SSD500_VOC_BOXES,
            20097,
            (0.021468, 0.021468, 0.042937, 0.042937),
            (0.5, 0.5, 0.548483, 1.0),
        ),
        # The width is 276 / sqrt(3) / 300; the height of 1.59 is clipped.
        (ORIGINAL_SSD300, 7308, (0.031579, 0.031579, 0.063158, 0.063158), (0.5, 0.5, 0.531162, 1.0)),
    ],
)
def test_make_default_boxes_matches_known_boxes_of_2016_configs(box_config, count, first, last):
    boxes = make_default_boxes(box_config)
    assert len(boxes) == box_config.count == count
    np.testing.assert_allclose(boxes[[0, -1]], [first, last], atol=6e-7)


@pytest.mark.parametrize(
    "box_config",
    [
        SSD300_VOC,
        config.DefaultBoxes(
            image_size=96,
            feature_maps=(5, 1, 2),  # not in descending order
            min_sizes=(10.5, 40, 33.25),
            max_sizes=(None, 90, 44.5),
            aspect_ratios=((), (1.5, 4, 0.2), (2,)),
            steps=(17.5, 96, 50),
        ),
        config.DefaultBoxes(
            image_size=64,
            feature_maps=(3,),
            min_sizes=(7,),
            max_sizes=(20,),
            aspect_ratios=((3,),),
            steps=(64 / 3,),
        ),
    ],
)
def test_make_default_boxes_equals_nested_loops(box_config):
    assert box_config.clip == "none"
    expected = reference.make_prior_boxes(
        box_config.image_size,
        box_config.feature_maps,
        box_config.min_sizes,
        box_config.max_sizes,
        box_config.aspect_ratios,
        box_config.steps,
    )
    boxes = make_default_boxes(box_config)
    assert len(boxes) == box_config.count
    np.testing.assert_allclose(boxes, expected, rtol=1e-6)


def test_default_steps_equal_the_image_size_divided_by_the_feature_map_size():
    box_config = dataclasses.replace(SSD300_VOC, steps=None)
    boxes = make_default_boxes(box_config)
    np.testing.assert_allclose(boxes[[0, 5775], 0], [0.5 / 38, 37.5 / 38], rtol=1e-6)
    np.testing.assert_array_equal(boxes[:, 2:], make_default_boxes(SSD300_VOC)[:, 2:])


def test_truncate_sizes_drops_the_fraction_of_each_size():
    box_config = dataclasses.replace(
        SSD300_VOC, min_sizes=(30.9, 60, 111, 162, 213, 264), max_sizes=(60.9, 111, 162, 213, 264, 315)
    )
    assert (make_default_boxes(box_config) != make_default_boxes(SSD300_VOC)).any()
    truncated = dataclasses.replace(box_config, truncate_sizes=True)
    np.testing.assert_array_equal(make_default_boxes(truncated), make_default_boxes(SSD300_VOC))
