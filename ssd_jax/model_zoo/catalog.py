"""The catalog: all trained networks that can be had by name. A comment above each row names its sources.

A model to download is only added if its hash is stated by the project that published it, or by a project that checks
its downloads.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType

BUNDLED_FOLDER = Path(__file__).parent / "bundled"

TORCHVISION_LICENSE = "BSD-3-Clause (torchvision)"
MMDETECTION_LICENSE = "Apache-2.0 (MMDetection)"
CAFFE_SSD_LICENSE = "BSD-2-Clause (weiliu89/caffe)"
# https://www.robots.ox.ac.uk/~vgg/research/very_deep/
OXFORD_LICENSE = "CC BY 4.0 (VGG, Oxford)"


@dataclass(frozen=True)
class CatalogModel:
    """A trained network that comes with the package or can be downloaded. It is a row of the catalog."""

    name: str
    """Name that commands and `ssd_jax.load` take."""
    network: str
    """Network, such as SSD300 or, for a backbone without predictors, VGG16."""
    classes: int
    """Number of classes without background. 0 for a backbone."""
    data: str
    """Data that the network was trained on."""
    license: str
    """License of the weights, with its owner."""
    accuracy: str
    """Accuracy as it was published, with the data. Empty if none was published."""
    source: str
    """Place at which the accuracy was published."""
    url: str = ""
    """Address of the file. Empty for a model that comes with the package."""
    digest: str = ""
    """Hash of the file: the algorithm, a colon, and hexadecimal digits, or the first eight of them."""
    megabytes: int = 0
    """Approximate size of the file in units of 1 000 000 bytes."""
    member: str = ""
    """Path of the weight file, if the file is an archive."""
    project: str = ""
    """Key of the settings in `weights.presets.PRESETS` that the file is imported with."""

    @property
    def is_bundled(self) -> bool:
        """Whether the model comes with the package."""
        return not self.url

    @property
    def folder(self) -> Path:
        """The model folder of a bundled model."""
        return BUNDLED_FOLDER / self.name

    @property
    def file_name(self) -> str:
        """Name of the file to download."""
        return PurePosixPath(self.url).name


_MODELS = (
    # Trained by this project. The card of each, README.md in its folder, has the command and all numbers.
    CatalogModel(
        name="shapes",
        network="SSD x 0.1875",
        classes=4,
        data="generated images",
        license="Apache-2.0 (ssd-jax)",
        accuracy="87.9 mAP, shapes test",
        source="its card",
    ),
    CatalogModel(
        name="blood-cells",
        network="SSD300 x 0.25",
        classes=3,
        data="BCCD trainval",
        license="Apache-2.0 (ssd-jax)",
        accuracy="88.0 mAP, BCCD test",
        source="its card",
    ),
    # torchvision/models/detection/ssd.py, SSD300_VGG16_Weights.COCO_V1: address, first eight digits of the SHA-256, and
    # box mAP on COCO val2017. Full SHA-256 and size: LibreYOLO, weights/convert_ssd_weights.py.
    CatalogModel(
        name="ssd300-coco-torchvision",
        network="SSD300",
        classes=90,
        data="COCO train2017",
        license=TORCHVISION_LICENSE,
        accuracy="25.1 AP, COCO val2017",
        source="torchvision, models/detection/ssd.py",
        url="https://download.pytorch.org/models/ssd300_vgg16_coco-b556d3b4.pth",
        digest="sha256:b556d3b43ab6c3f63d81bfb8835fe8756ac22da664357da100dccf96b6a6b42d",
        megabytes=143,
        project="torchvision",
    ),
    # MMDetection, configs/ssd/README.md and metafile.yml since version 2.15. MMDetection's publish_model.py appends the
    # first eight digits of the SHA-256 to the name. The sizes are those of the parameters in float32.
    CatalogModel(
        name="ssd300-coco-mmdetection",
        network="SSD300",
        classes=80,
        data="COCO train2017",
        license=MMDETECTION_LICENSE,
        accuracy="25.5 AP, COCO val2017",
        source="MMDetection, configs/ssd/README.md",
        url="https://download.openmmlab.com/mmdetection/v2.0/ssd/ssd300_coco/ssd300_coco_20210803_015428-d231a06e.pth",
        digest="sha256:d231a06e",
        megabytes=137,
        project="mmdetection",
    ),
    CatalogModel(
        name="ssd512-coco-mmdetection",
        network="SSD512",
        classes=80,
        data="COCO train2017",
        license=MMDETECTION_LICENSE,
        accuracy="29.5 AP, COCO val2017",
        source="MMDetection, configs/ssd/README.md",
        url="https://download.openmmlab.com/mmdetection/v2.0/ssd/ssd512_coco/ssd512_coco_20210803_022849-0a47a1ca.pth",
        digest="sha256:0a47a1ca",
        megabytes=144,
        project="mmdetection",
    ),
    # MMDetection, configs/pascal_voc/README.md.
    CatalogModel(
        name="ssd300-voc-mmdetection",
        network="SSD300",
        classes=20,
        data="VOC07+12",
        license=MMDETECTION_LICENSE,
        accuracy="76.5 mAP, VOC2007 test",
        source="MMDetection, configs/pascal_voc/README.md",
        url="https://download.openmmlab.com/mmdetection/v2.0/pascal_voc/ssd300_voc0712/"
        "ssd300_voc0712_20220320_194658-17edda1b.pth",
        digest="sha256:17edda1b",
        megabytes=105,
        project="mmdetection",
    ),
    CatalogModel(
        name="ssd512-voc-mmdetection",
        network="SSD512",
        classes=20,
        data="VOC07+12",
        license=MMDETECTION_LICENSE,
        accuracy="79.5 mAP, VOC2007 test",
        source="MMDetection, configs/pascal_voc/README.md",
        url="https://download.openmmlab.com/mmdetection/v2.0/pascal_voc/ssd512_voc0712/"
        "ssd512_voc0712_20220320_194717-03cefefe.pth",
        digest="sha256:03cefefe",
        megabytes=109,
        project="mmdetection",
    ),
    # The files of the paper's authors, as OpenVINO distributes them: open_model_zoo, models/public/ssd300/model.yml and
    # models/public/ssd512/model.yml (address, size, SHA-256, and path in the archive). VOC07++12 includes VOC2007 test.
    CatalogModel(
        name="ssd300-voc-caffe",
        network="SSD300",
        classes=20,
        data="COCO, then VOC07++12",
        license=CAFFE_SSD_LICENSE,
        accuracy="79.3 mAP, VOC2012 test",
        source="the paper, Table 6",
        url="https://storage.openvinotoolkit.org/repositories/open_model_zoo/public/2021.4/ssd300/"
        "models_VGGNet_VOC0712Plus_SSD_300x300_ft.tar.gz",
        digest="sha256:e3eb9794a33eb77e6798f396df453123c249a1df554e42a3302eb4aa20a8f2ee",
        megabytes=98,
        member="models/VGGNet/VOC0712Plus/SSD_300x300_ft/VGG_VOC0712Plus_SSD_300x300_ft_iter_160000.caffemodel",
        project="caffe",
    ),
    CatalogModel(
        name="ssd512-voc-caffe",
        network="SSD512",
        classes=20,
        data="VOC07++12",
        license=CAFFE_SSD_LICENSE,
        accuracy="74.9 mAP, VOC2012 test",
        source="the paper, Table 4",
        url="https://storage.openvinotoolkit.org/repositories/open_model_zoo/public/2021.4/ssd512/"
        "models_VGGNet_VOC0712Plus_SSD_512x512.tar.gz",
        digest="sha256:2d98a6ddd5b4cb0ba59a37fe5d50020457cfe104d45873c3ea43d1e6dcddd12d",
        megabytes=101,
        member="models/VGGNet/VOC0712Plus/SSD_512x512/VGG_VOC0712Plus_SSD_512x512_iter_240000.caffemodel",
        project="caffe",
    ),
    # torchvision/models/vgg.py, VGG16_Weights.IMAGENET1K_FEATURES: address, first eight digits of the SHA-256, size.
    # It was made from vgg16_reducedfc.pth of ssd.pytorch, which was made from the file of the paper's authors.
    CatalogModel(
        name="vgg16-torchvision-features",
        network="VGG16",
        classes=0,
        data="ImageNet",
        license=OXFORD_LICENSE,
        accuracy="",
        source="torchvision, models/vgg.py",
        url="https://download.pytorch.org/models/vgg16_features-amdegroot-88682ab5.pth",
        digest="sha256:88682ab5",
        megabytes=553,
        project="torchvision_features",
    ),
    # torchvision/models/vgg.py, VGG16_Weights.IMAGENET1K_V1. Full SHA-256: stated alike by several projects that check
    # the file, such as PERO OCR's download script.
    CatalogModel(
        name="vgg16-torchvision",
        network="VGG16",
        classes=0,
        data="ImageNet",
        license=TORCHVISION_LICENSE,
        accuracy="71.6 top-1, ImageNet val",
        source="torchvision, models/vgg.py",
        url="https://download.pytorch.org/models/vgg16-397923af.pth",
        digest="sha256:397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
        megabytes=553,
        project="torchvision_vgg16",
    ),
    # OpenVINO's open_model_zoo, models/public/vgg16/model.yml: address, size and SHA-256 of Oxford's file.
    CatalogModel(
        name="vgg16-caffe",
        network="VGG16",
        classes=0,
        data="ImageNet",
        license=OXFORD_LICENSE,
        accuracy="",
        source="",
        url="http://www.robots.ox.ac.uk/~vgg/software/very_deep/caffe/VGG_ILSVRC_16_layers.caffemodel",
        digest="sha256:a6196bc498e45ea4cb2637114ae8db9410cf1556fd60a55ae93272371beba197",
        megabytes=553,
        project="caffe_vgg16",
    ),
    # keras/src/applications/vgg16.py: address and MD5. The license is stated by keras-applications' README.md. The
    # weights are Oxford's.
    CatalogModel(
        name="vgg16-keras",
        network="VGG16",
        classes=0,
        data="ImageNet",
        license=OXFORD_LICENSE,
        accuracy="",
        source="",
        url="https://storage.googleapis.com/tensorflow/keras-applications/vgg16/"
        "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
        digest="md5:6d6bbae143d832006294945121d1f1fc",
        megabytes=59,
        project="keras_vgg16",
    ),
)

CATALOG: Mapping[str, CatalogModel] = MappingProxyType({model.name: model for model in _MODELS})
"""All models that can be had by name."""


def format_similar_names(name: str) -> str:
    """Return a question that lists the names of the catalog that are most similar to a name, or an empty string."""
    similar = difflib.get_close_matches(name.lower().replace("_", "-"), CATALOG, n=3)
    return f"Did you mean {' or '.join(similar)}? " if similar else ""
