"""Write a list of the keys and shapes of each published weight file to a text file in this folder.

    python tests/assets/weight_keys/make.py        (needs torch and torchvision)

The published files themselves are not available. Therefore this script repeats the modules of each project with
torch.nn, as in the source code of the project, and lists the keys of their state_dict. torchvision's lists come from
the library. Caffe and Keras have no state_dict: their keys are those that the readers of ssd_jax.weights return,
"<layer>.<number>", where 0 is the weight and 1 the bias. This script does not import ssd_jax, because the lists are
used to check its key mappings.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
import torchvision
from torch import nn

VGG16 = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512)
# Channels of the extra layers of ssd.pytorch and mmdetection. "S" before a number stands for stride 2 and padding 1.
EXTRAS_300 = (256, "S", 512, 128, "S", 256, 128, 256, 128, 256)
EXTRAS_512 = (256, "S", 512, 128, "S", 256, 128, "S", 256, 128, "S", 256)
CHANNELS_300, BOXES_300 = (512, 1024, 512, 256, 256, 256), (4, 6, 6, 6, 4, 4)
CHANNELS_512, BOXES_512 = (512, 1024, 512, 256, 256, 256, 256), (4, 6, 6, 6, 6, 4, 4)

Shapes = Iterable[tuple[str, tuple[int, ...]]]
StoredConv = Callable[[str, int, int, int], Shapes]

torch.set_default_device("meta")  # only shapes are needed


# ---- torch ----


def list_module_shapes(**modules: nn.Module) -> Shapes:
    """Yield the key and shape of each tensor of the modules. Two underscores in the name of a module mean a dot."""
    for name, module in modules.items():
        for key, value in module.state_dict().items():
            yield f"{name.replace('__', '.')}.{key}".lstrip("."), tuple(value.shape)


def make_vgg_layers() -> list[nn.Module]:
    """Return the layers of VGG16 up to conv5_3, then pool5, fc6 and fc7 as in SSD."""
    layers: list[nn.Module] = []
    channels = 3
    for entry in VGG16:
        if entry == "M":
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [nn.Conv2d(channels, entry, 3, padding=1), nn.ReLU()]
            channels = entry
    fc6, fc7 = nn.Conv2d(512, 1024, 3, padding=6, dilation=6), nn.Conv2d(1024, 1024, 1)
    return [*layers, nn.MaxPool2d(3, 1, 1), fc6, nn.ReLU(), fc7, nn.ReLU()]


def make_extra_layers(entries: tuple[int | str, ...]) -> list[nn.Module]:
    """Return the convolutions of the extra layers. The ReLUs between them are functions, not modules."""
    layers: list[nn.Module] = []
    channels, stride = 1024, 1
    for entry in entries:
        if entry == "S":
            stride = 2
            continue
        layers.append(nn.Conv2d(channels, entry, 3 if len(layers) % 2 else 1, stride, padding=stride - 1))
        channels, stride = entry, 1
    if entries == EXTRAS_512:
        layers += [nn.Conv2d(256, 128, 1), nn.Conv2d(128, 256, 4, padding=1)]
    return layers


def make_heads(channels_of_maps: tuple[int, ...], boxes: tuple[int, ...], channels_per_box: int) -> list[nn.Module]:
    """Return a predictor for each feature map, with ``channels_per_box`` channels per default box."""
    return [nn.Conv2d(d, k * channels_per_box, 3, padding=1) for d, k in zip(channels_of_maps, boxes, strict=True)]


class L2Norm(nn.Module):
    """A module with the scale of conv4_3_norm as its only parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(512))


class ConvModule(nn.Module):
    """A module with a convolution named conv, like mmcv's ConvModule without a norm."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv


def list_ssd_pytorch_shapes(classes: int) -> Shapes:
    """Return keys and shapes of ssd.pytorch's SSD300."""
    return list_module_shapes(
        vgg=nn.ModuleList(make_vgg_layers()),
        L2Norm=L2Norm(),
        extras=nn.ModuleList(make_extra_layers(EXTRAS_300)),
        loc=nn.ModuleList(make_heads(CHANNELS_300, BOXES_300, 4)),
        conf=nn.ModuleList(make_heads(CHANNELS_300, BOXES_300, classes)),
    )


def list_lufficc_shapes(size: int, classes: int) -> Shapes:
    """Return keys and shapes of lufficc's detector for images of ``size`` pixels."""
    extras, channels_of_maps, boxes = get_network_parts(size)
    return list_module_shapes(
        backbone__vgg=nn.ModuleList(make_vgg_layers()),
        backbone__extras=nn.ModuleList(make_extra_layers(extras)),
        backbone__l2_norm=L2Norm(),
        box_head__predictor__cls_headers=nn.ModuleList(make_heads(channels_of_maps, boxes, classes)),
        box_head__predictor__reg_headers=nn.ModuleList(make_heads(channels_of_maps, boxes, 4)),
    )


def list_lufficc_v1_shapes(size: int, classes: int) -> Shapes:
    """Return keys and shapes of the detector in lufficc's release 1.0."""
    extras, channels_of_maps, boxes = get_network_parts(size)
    return list_module_shapes(
        vgg=nn.ModuleList(make_vgg_layers()),
        extras=nn.ModuleList(make_extra_layers(extras)),
        classification_headers=nn.ModuleList(make_heads(channels_of_maps, boxes, classes)),
        regression_headers=nn.ModuleList(make_heads(channels_of_maps, boxes, 4)),
        l2_norm=L2Norm(),
    )


def list_mmdetection_shapes(size: int, classes: int) -> Shapes:
    """Return keys and shapes of MMDetection's detector. ``classes`` does not count background."""
    extras, channels_of_maps, boxes = get_network_parts(size)
    layers = [ConvModule(conv) for conv in make_extra_layers(extras)]
    pairs = [nn.Sequential(*layers[i : i + 2]) for i in range(0, len(layers), 2)]
    return list_module_shapes(
        backbone__features=nn.Sequential(*make_vgg_layers()),
        neck__l2_norm=L2Norm(),
        neck__extra_layers=nn.ModuleList(pairs),
        bbox_head__cls_convs=nn.ModuleList(map(nn.Sequential, make_heads(channels_of_maps, boxes, classes + 1))),
        bbox_head__reg_convs=nn.ModuleList(map(nn.Sequential, make_heads(channels_of_maps, boxes, 4))),
    )


def list_early_mmdetection_shapes(size: int, classes: int) -> Shapes:
    """Return keys and shapes of the detector in MMDetection 2.0 to 2.13. ``classes`` does not count background."""
    extras, channels_of_maps, boxes = get_network_parts(size)
    return list_module_shapes(
        backbone__features=nn.Sequential(*make_vgg_layers()),
        backbone__extra=nn.Sequential(*make_extra_layers(extras)),
        backbone__l2_norm=L2Norm(),
        bbox_head__reg_convs=nn.ModuleList(make_heads(channels_of_maps, boxes, 4)),
        bbox_head__cls_convs=nn.ModuleList(make_heads(channels_of_maps, boxes, classes + 1)),
    )


def get_network_parts(size: int) -> tuple[tuple[int | str, ...], tuple[int, ...], tuple[int, ...]]:
    """Return extra layers, channels of the feature maps, and boxes per cell for images of ``size`` pixels."""
    return (EXTRAS_300, CHANNELS_300, BOXES_300) if size == 300 else (EXTRAS_512, CHANNELS_512, BOXES_512)


def list_torchvision_ssd_shapes() -> Shapes:
    """Return keys and shapes of torchvision's SSD300."""
    model = torchvision.models.detection.ssd300_vgg16(weights=None, weights_backbone=None)
    return [(key, tuple(value.shape)) for key, value in model.state_dict().items()]


def list_torchvision_vgg16_shapes() -> Shapes:
    """Return keys and shapes of torchvision's VGG16."""
    return [(key, tuple(value.shape)) for key, value in torchvision.models.vgg16().state_dict().items()]


# ---- Caffe and Keras ----


def list_vgg_convolutions() -> Iterator[tuple[str, int, int]]:
    """Yield Caffe's name, the input channels and the output channels of each convolution of VGG16."""
    block, layer, channels = 1, 1, 3
    for entry in VGG16:
        if entry == "M":
            block, layer = block + 1, 1
        else:
            yield f"conv{block}_{layer}", channels, entry
            layer, channels = layer + 1, entry


def list_caffe_conv_shapes(name: str, channels: int, out: int, kernel: int) -> Shapes:
    """Return keys and shapes of a convolution in Caffe."""
    return [(f"{name}.0", (out, channels, kernel, kernel)), (f"{name}.1", (out,))]


def list_keras_conv_shapes(name: str, channels: int, out: int, kernel: int) -> Shapes:
    """Return keys and shapes of a convolution in Keras."""
    return [(f"{name}.0", (kernel, kernel, channels, out)), (f"{name}.1", (out,))]


def list_ssd_shapes(
    conv: StoredConv, extras: tuple[int, ...], boxes: tuple[int, ...], classes: int, pool6: bool = False
) -> Shapes:
    """Yield keys and shapes of a detector whose layers have Caffe's names.

    Args:
        conv: Function that returns keys and shapes of a convolution.
        extras: Kernel sizes of conv6_2, conv7_2, ...
        boxes: Number of default boxes per cell of each feature map.
        classes: Number of classes including background.
        pool6: Whether the detector has the feature map pool6.
    """
    for name, channels, out in list_vgg_convolutions():
        yield from conv(name, channels, out, 3)
    yield from conv("fc6", 512, 1024, 3)
    yield from conv("fc7", 1024, 1024, 1)
    channels_of_maps = [("conv4_3_norm", 512), ("fc7", 1024)]
    for number, kernel in enumerate(extras, start=6):
        bottleneck, out = (256, 512) if number == 6 else (128, 256)
        yield from conv(f"conv{number}_1", channels_of_maps[-1][1], bottleneck, 1)
        yield from conv(f"conv{number}_2", bottleneck, out, kernel)
        channels_of_maps.append((f"conv{number}_2", out))
    if pool6:
        channels_of_maps.append(("pool6", 256))
    yield "conv4_3_norm.0", (512,)
    for (name, channels), count in zip(channels_of_maps, boxes, strict=True):
        yield from conv(f"{name}_mbox_loc", channels, count * 4, 3)
        yield from conv(f"{name}_mbox_conf", channels, count * classes, 3)


def list_caffe_vgg16_shapes(reduced: bool) -> Shapes:
    """Yield keys and shapes of Caffe's VGG16. ``reduced``: whether fc6 and fc7 are reduced to 1024 units."""
    for name, channels, out in list_vgg_convolutions():
        yield from list_caffe_conv_shapes(name, channels, out, 3)
    if reduced:
        yield from list_caffe_conv_shapes("fc6", 512, 1024, 3)
        yield from list_caffe_conv_shapes("fc7", 1024, 1024, 1)
        yield from list_caffe_conv_shapes("fc8", 1024, 1000, 1)
    else:
        for name, inputs, outputs in (("fc6", 25088, 4096), ("fc7", 4096, 4096), ("fc8", 4096, 1000)):
            yield f"{name}.0", (outputs, inputs)
            yield f"{name}.1", (outputs,)


def list_keras_vgg16_shapes() -> Shapes:
    """Yield keys and shapes of VGG16 in Keras."""
    for name, channels, out in list_vgg_convolutions():
        yield from list_keras_conv_shapes(name.replace("conv", "block").replace("_", "_conv"), channels, out, 3)
    for name, inputs, outputs in (("fc1", 25088, 4096), ("fc2", 4096, 4096), ("predictions", 4096, 1000)):
        yield f"{name}.0", (inputs, outputs)
        yield f"{name}.1", (outputs,)


# ---- the files ----

FROM_MODULES = "state_dict of the modules as stated there, restated with torch.nn"
FROM_CAFFE = "layers as stated there; <layer>.<number of the blob>"
FROM_KERAS = "layers as stated there; <layer>.<number in weight_names>, kernels HWIO"
LUFFICC = "lufficc/SSD ssd/modeling/backbone/vgg.py @4592691a, box_head/box_predictor.py @09fb318c"
MMDETECTION = "open-mmlab/mmdetection mmdet/models/necks/ssd_neck.py @b57ac2c3, dense_heads/ssd_head.py @024d2bd2"
CAFFE_512 = (
    "weiliu89/caffe's release for COCO, in cory8249/caffe models/VGGNet/coco/SSD_512x512/deploy.prototxt @121023cb"
)
TORCHVISION = f"torchvision {torchvision.__version__.split('+')[0]}"

# name: (number of parameters if known from elsewhere, source, method, keys and shapes)
FILES: dict[str, tuple[int | None, str, str, Shapes]] = {
    "torchvision": (
        35_641_826,  # as in the metadata of the library's weights
        f"{TORCHVISION} models/detection/ssd.py; file ssd300_vgg16_coco-b556d3b4.pth",
        "state_dict of ssd300_vgg16(weights=None, weights_backbone=None)",
        list_torchvision_ssd_shapes(),
    ),
    "ssd_pytorch": (
        26_285_486,  # as OpenVINO counts SSD300 for VOC
        "amdegroot/ssd.pytorch ssd.py @5b0b77fa; file ssd300_mAP_77.43_v2.pth",
        FROM_MODULES,
        list_ssd_pytorch_shapes(21),
    ),
    "vgg16_reducedfc": (
        20_483_904,
        "amdegroot/ssd.pytorch ssd.py, vgg, @5b0b77fa; file vgg16_reducedfc.pth",
        FROM_MODULES,
        list_module_shapes(**{"": nn.ModuleList(make_vgg_layers())}),
    ),
    "lufficc_ssd300": (
        26_285_486,
        f"{LUFFICC}; file vgg_ssd300_voc0712.pth, in 'model'",
        FROM_MODULES,
        list_lufficc_shapes(300, 21),
    ),
    "lufficc_ssd512": (
        27_188_676,
        f"{LUFFICC}; file vgg_ssd512_voc0712.pth, in 'model'",
        FROM_MODULES,
        list_lufficc_shapes(512, 21),
    ),
    "lufficc_ssd512_coco": (
        36_038_196,
        f"{LUFFICC}; file vgg_ssd512_coco_trainval35k.pth, in 'model'",
        FROM_MODULES,
        list_lufficc_shapes(512, 81),
    ),
    "lufficc_ssd300_v1": (
        26_285_486,
        "lufficc/SSD ssd/modeling/ssd.py and vgg_ssd.py @0d319e8c; file ssd300_voc0712_mAP77.83.pth",
        FROM_MODULES,
        list_lufficc_v1_shapes(300, 21),
    ),
    "mmdetection_ssd300": (
        34_305_206,
        f"{MMDETECTION}; file ssd300_coco_20210604_193052-b61137df.pth, in 'state_dict'",
        FROM_MODULES,
        list_mmdetection_shapes(300, 80),
    ),
    "mmdetection_ssd512": (
        36_038_196,
        f"{MMDETECTION}; file ssd512_coco_20210604_111835-d3eba047.pth, in 'state_dict'",
        FROM_MODULES,
        list_mmdetection_shapes(512, 80),
    ),
    "mmdetection_ssd300_early": (
        34_305_206,
        "open-mmlab/mmdetection mmdet/models/backbones/ssd_vgg.py @2dc86faf; "
        "file ssd300_coco_20200307-a92d2092.pth, in 'state_dict'",
        FROM_MODULES,
        list_early_mmdetection_shapes(300, 80),
    ),
    "caffe_ssd300": (
        26_285_486,
        "weiliu89/caffe examples/ssd/ssd_pascal.py @4817bf8b; file VGG_VOC0712_SSD_300x300_iter_120000.caffemodel",
        FROM_CAFFE,
        list_ssd_shapes(list_caffe_conv_shapes, (3, 3, 3, 3), BOXES_300, 21),
    ),
    "caffe_ssd512": (
        36_038_196,
        f"{CAFFE_512}; file VGG_coco_SSD_512x512_iter_360000.caffemodel",
        FROM_CAFFE,
        list_ssd_shapes(list_caffe_conv_shapes, (3, 3, 3, 3, 4), BOXES_512, 81),
    ),
    "caffe_ssd500": (
        26_746_511,
        "weiliu89/caffe examples/ssd/ssd_pascal_500.py @f37b29a3 (a copy: IrvingShu/caffe_ssd @07f0e30b)",
        FROM_CAFFE,
        list_ssd_shapes(list_caffe_conv_shapes, (3, 3, 3, 3), (3, 6, 6, 6, 6, 6, 6), 21, pool6=True),
    ),
    "caffe_ssd300_pool6": (
        None,
        "weiliu89/caffe examples/ssd/ssd_pascal.py of spring 2016, by amdegroot/ssd.pytorch ssd.py @041fe47b",
        FROM_CAFFE,
        list_ssd_shapes(list_caffe_conv_shapes, (3, 3, 3), (3, 6, 6, 6, 6, 6), 21, pool6=True),
    ),
    "keras_ssd300": (
        26_285_486,
        "pierluigiferrari/ssd_keras models/keras_ssd300.py @03fa7c4b; file VGG_VOC0712_SSD_300x300_iter_120000.h5",
        FROM_KERAS,
        list_ssd_shapes(list_keras_conv_shapes, (3, 3, 3, 3), BOXES_300, 21),
    ),
    "keras_ssd512": (
        27_188_676,
        "pierluigiferrari/ssd_keras models/keras_ssd512.py @03fa7c4b; file VGG_VOC0712_SSD_512x512_iter_120000.h5",
        FROM_KERAS,
        list_ssd_shapes(list_keras_conv_shapes, (3, 3, 3, 3, 4), BOXES_512, 21),
    ),
    "torchvision_vgg16": (
        138_357_544,  # as in the metadata of the library's weights
        f"{TORCHVISION} models/vgg.py; files vgg16-397923af.pth and vgg16_features-amdegroot-88682ab5.pth",
        "state_dict of vgg16(); of the second file only features.* hold weights",
        list_torchvision_vgg16_shapes(),
    ),
    "caffe_vgg16_fc_reduced": (
        20_483_904 + 1_025_000,  # fc8
        "VGG_ILSVRC_16_layers_fc_reduced_deploy.prototxt in Luoyadan/ssd-NVcaffe models/VGGNet @5eb9a3bb; "
        "file VGG_ILSVRC_16_layers_fc_reduced.caffemodel",
        FROM_CAFFE,
        list_caffe_vgg16_shapes(reduced=True),
    ),
    "caffe_vgg16": (
        138_357_544,
        "VGG_ILSVRC_16_layers_deploy.prototxt, gist ksimonyan/211839e770f7b538e2d8; "
        "file VGG_ILSVRC_16_layers.caffemodel (its fully connected blobs have two leading axes of 1)",
        FROM_CAFFE,
        list_caffe_vgg16_shapes(reduced=False),
    ),
    "keras_vgg16": (
        138_357_544,
        "keras-team/keras-applications keras_applications/vgg16.py @2661dac4; "
        "file vgg16_weights_tf_dim_ordering_tf_kernels.h5 (without the last three layers: ..._notop.h5)",
        FROM_KERAS,
        list_keras_vgg16_shapes(),
    ),
}


def main() -> None:
    folder = Path(__file__).parent
    for name, (expected, source, how, shapes) in FILES.items():
        shapes = list(shapes)
        count = sum(torch.Size(shape).numel() for _, shape in shapes)
        assert expected in (None, count), f"{name}: {count} parameters, not {expected}"
        lines = [f"# {source}", f"# {how}", f"# {count} numbers; made by make.py beside this file"]
        lines += [f"{key} {','.join(map(str, shape))}" for key, shape in shapes]
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")
        print(f"{name:24} {len(shapes):4} keys {count:12,}")


if __name__ == "__main__":
    main()
