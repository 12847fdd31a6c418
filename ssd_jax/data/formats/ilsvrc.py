"""Read the data set of the ILSVRC detection task (ImageNet DET, 200 classes) from its original folders.

Format: readme of the ILSVRC2015 development kit, section 2. Boxes are in XML files in the format of VOC. The files name
a class by its WordNet synset; for example, n02084071 is the class dog.

The lists for single classes, ``train_1.txt`` to ``train_200.txt``, are not read. An image that is a negative example in
such a list does not contain this class, but it may contain other classes, and has no boxes for them. Images without an
XML file are therefore left out of training, as in the authors' experiment (Caffe, data/ILSVRC2016/create_list.py). For
some classes, the challenge's evaluation skips images that are listed in the development kit; this list is not read
either.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from ssd_jax.config import Data
from ssd_jax.data.folder import Folder
from ssd_jax.data.formats.reader import PUBLISHED, SplitBuilder
from ssd_jax.data.formats.voc_xml import header_or_stated_size, parse_voc_xml
from ssd_jax.data.problems import Kind, Problems
from ssd_jax.data.source import FolderSource, RawObject, read_text
from ssd_jax.errors import UserError
from ssd_jax.plurals import format_count

LAYOUT = ".xml files in Annotations/DET, images in Data/DET"

# The order is that of ILSVRC2015_DET_ID in the development kit, and of Caffe's
# data/ILSVRC2016/labelmap_ilsvrc_det.prototxt. MMDetection's imagenet_det_classes has the same order.
SYNSETS = dict(
    re.findall(
        r"(n\d{8}) (\S+)",
        """
n02672831 accordion n02691156 airplane n02219486 ant n02419796 antelope n07739125 apple n02454379 armadillo
n07718747 artichoke n02764044 axe n02766320 baby_bed n02769748 backpack n07693725 bagel n02777292 balance_beam
n07753592 banana n02786058 band_aid n02787622 banjo n02799071 baseball n02802426 basketball n02807133 bathing_cap
n02815834 beaker n02131653 bear n02206856 bee n07720875 bell_pepper n02828884 bench n02834778 bicycle n02840245 binder
n01503061 bird n02870880 bookshelf n02883205 bow_tie n02879718 bow n02880940 bowl n02892767 brassiere
n07880968 burrito n02924116 bus n02274259 butterfly n02437136 camel n02951585 can_opener n02958343 car n02970849 cart
n02402425 cattle n02992211 cello n01784675 centipede n03000684 chain_saw n03001627 chair n03017168 chime
n03062245 cocktail_shaker n03063338 coffee_maker n03085013 computer_keyboard n03793489 computer_mouse
n03109150 corkscrew n03128519 cream n03134739 croquet_ball n03141823 crutch n07718472 cucumber n03797390 cup_or_mug
n03188531 diaper n03196217 digital_clock n03207941 dishwasher n02084071 dog n02121808 domestic_cat n02268443 dragonfly
n03249569 drum n03255030 dumbbell n03271574 electric_fan n02503517 elephant n03314780 face_powder n07753113 fig
n03337140 filing_cabinet n03991062 flower_pot n03372029 flute n02118333 fox n03394916 french_horn n01639765 frog
n03400231 frying_pan n02510455 giant_panda n01443537 goldfish n03445777 golf_ball n03445924 golfcart
n07583066 guacamole n03467517 guitar n03483316 hair_dryer n03476991 hair_spray n07697100 hamburger n03481172 hammer
n02342885 hamster n03494278 harmonica n03495258 harp n03124170 hat_with_a_wide_brim n07714571 head_cabbage
n03513137 helmet n02398521 hippopotamus n03535780 horizontal_bar n02374451 horse n07697537 hotdog n03584254 iPod
n01990800 isopod n01910747 jellyfish n01882714 koala_bear n03633091 ladle n02165456 ladybug n03636649 lamp
n03642806 laptop n07749582 lemon n02129165 lion n03676483 lipstick n01674464 lizard n01982650 lobster
n03710721 maillot n03720891 maraca n03759954 microphone n03761084 microwave n03764736 milk_can n03770439 miniskirt
n02484322 monkey n03790512 motorcycle n07734744 mushroom n03804744 nail n03814639 neck_brace n03838899 oboe
n07747607 orange n02444819 otter n03908618 pencil_box n03908714 pencil_sharpener n03916031 perfume n00007846 person
n03928116 piano n07753275 pineapple n03942813 ping-pong_ball n03950228 pitcher n07873807 pizza n03958227 plastic_bag
n03961711 plate_rack n07768694 pomegranate n07615774 popsicle n02346627 porcupine n03995372 power_drill
n07695742 pretzel n04004767 printer n04019541 puck n04023962 punching_bag n04026417 purse n02324045 rabbit
n04039381 racket n01495701 ray n02509815 red_panda n04070727 refrigerator n04074963 remote_control
n04116512 rubber_eraser n04118538 rugby_ball n04118776 ruler n04131690 salt_or_pepper_shaker n04141076 saxophone
n01770393 scorpion n04154565 screwdriver n02076196 seal n02411705 sheep n04228054 ski n02445715 skunk n01944390 snail
n01726692 snake n04252077 snowmobile n04252225 snowplow n04254120 soap_dispenser n04254680 soccer_ball n04256520 sofa
n04270147 spatula n02355227 squirrel n02317335 starfish n04317175 stethoscope n04330267 stove n04332243 strainer
n07745940 strawberry n04336792 stretcher n04356056 sunglasses n04371430 swimming_trunks n02395003 swine
n04376876 syringe n04379243 table n04392985 tape_player n04409515 tennis_ball n01776313 tick n04591157 tie
n02129604 tiger n04442312 toaster n06874185 traffic_light n04468005 train n04487394 trombone n03110669 trumpet
n01662784 turtle n03211117 tv_or_monitor n04509417 unicycle n04517823 vacuum n04536866 violin n04540053 volleyball
n04542943 waffle_iron n04554684 washer n04557648 water_bottle n04530566 watercraft n02062744 whale
n04591713 wine_bottle n02391049 zebra
""",
    )
)
"""Name of each of the 200 classes by its synset, in the order of the labels."""

_CLASS_LIST = re.compile(r"train_(pos_|part_|neg_)?\d+")


def count_annotated(folder: Folder) -> int:
    """Return a large number if a folder contains ``Annotations/DET``, or 0. The XML files are not counted."""
    return PUBLISHED if (folder.root / "Annotations" / "DET").is_dir() else 0


def split_names(folder: Folder, data: Data) -> tuple[str, ...]:
    """Return the names of the splits: the folders of annotations, and the lists except those for single classes.

    The split ``test`` is left out, since its annotations were never released.
    """
    lists = {file.stem for file in (folder.root / "ImageSets" / "DET").glob("*.txt")}
    folders = {place.name for place in (folder.root / "Annotations" / "DET").glob("*/")}
    return tuple(sorted(name for name in lists | folders if name != "test" and not _CLASS_LIST.fullmatch(name)))


def open_split(folder: Folder, data: Data, split: str, class_names: Sequence[str], problems: Problems) -> FolderSource:
    """Open a split of ILSVRC DET, reading all its annotation files and the headers of its images.

    A split is a list ``ImageSets/DET/<split>.txt`` or, if there is no such list, the folder
    ``Annotations/DET/<split>``. The lists ``val1`` and ``val2`` of R-CNN can be added to ``ImageSets/DET``. Images are
    in ``Data/DET``. The id of an image is its path below ``Data/DET/train`` or ``Data/DET/val`` without extension, as
    in the lists.

    Args:
        folder: The folder.
        data: Options of the data set.
        split: Name of the split.
        class_names: Class names in the order of their labels. Empty: the classes in ``map_det.txt`` in the folder or
            in its ``devkit/data``, where each line contains a synset, a number and a name, or the 200 classes of the
            challenge if there is no such file.
        problems: Object that collects errors and warnings.

    Raises:
        UserError: If the split has no annotation file. If ``problems`` raises errors, also if an
            image or the annotation file of a validation image is missing, an XML file is malformed, or a synset has no
            name.
    """
    root = folder.root
    names_by_synset = _names_by_synset(root)
    builder = SplitBuilder(class_names or tuple(names_by_synset.values()), problems)
    negatives = 0
    for image_id, where in _image_ids(root, split).items():
        with problems.collect_errors(Kind.MISSING, where):
            xml, image = _find_files(root, image_id, where)
            if xml is None:
                negatives += 1
                continue
            with problems.collect_errors(Kind.MALFORMED, xml):
                content = parse_voc_xml(xml, problems)
                objects = _rename_synsets(content.objects, names_by_synset, xml, problems)
                with problems.collect_errors(Kind.UNREADABLE, image):
                    builder.add(image_id, image, header_or_stated_size(image, content), objects, file=xml)
    if not len(builder):
        raise UserError(
            f"{root}: the split '{split}' has no annotation file in Annotations/DET. Unpack the annotation files there."
        )
    sentence = f"images of '{split}' have no annotation file and were left out, as in the authors' experiment"
    text = format_count(negatives, sentence)
    return builder.build(notes=[text] if negatives else [])


def _image_ids(root: Path, split: str) -> dict[str, str]:
    """Return the image ids of a split, each with the place that names the image.

    The place is a line of the split's list or, without a list, the annotation file.
    """
    file = root / "ImageSets" / "DET" / f"{split}.txt"
    if file.is_file():
        lines = enumerate(read_text(file).splitlines(), start=1)
        return {line.split()[0]: f"{file} line {number}" for number, line in lines if line.strip()}
    folder = root / "Annotations" / "DET" / split
    return {xml.relative_to(folder).with_suffix("").as_posix(): str(xml) for xml in sorted(folder.rglob("*.xml"))}


def _find_files(root: Path, image_id: str, where: str) -> tuple[Path | None, Path]:
    """Return the paths of an image's annotation file and of the image itself.

    The first path is None for a training image without an annotation file. For such an image, it is only known that
    some classes do not occur.
    """
    subset = re.search(r"_(train|val)(_|/)", image_id)
    if subset is None:
        raise UserError(f"{where}: '{image_id}' is not an image of train or val. Correct the line, or remove it.")
    xml = root / "Annotations" / "DET" / subset[1] / f"{image_id}.xml"
    image = root / "Data" / "DET" / subset[1] / f"{image_id}.JPEG"
    if not xml.is_file():
        if subset[1] == "val":
            raise UserError(f"{where}: the annotation file {xml} is missing. Unpack it, or remove the line.")
        return None, image
    if not image.is_file():
        raise UserError(f"{where}: the image {image} is missing. Unpack it, or remove the line or the annotation file.")
    return xml, image


def _rename_synsets(
    objects: Sequence[RawObject], names_by_synset: dict[str, str], file: Path, problems: Problems
) -> list[RawObject]:
    """Return the objects with class names in place of synsets. Objects with an unknown synset become problems."""
    for entry in objects:
        if entry.name not in names_by_synset:
            problems.add(
                Kind.UNKNOWN_CLASS,
                file,
                f"{entry.where} has the class '{entry.name}', which is not one of the {len(names_by_synset)} synsets. "
                "Correct it, or add a map_det.txt with all classes.",
                group=entry.name,
            )
    return [o._replace(name=names_by_synset[o.name]) for o in objects if o.name in names_by_synset]


def _names_by_synset(root: Path) -> dict[str, str]:
    for file in (root / "map_det.txt", root / "devkit" / "data" / "map_det.txt"):
        if file.is_file():
            return _read_synset_map(file)
    return SYNSETS


def _read_synset_map(file: Path) -> dict[str, str]:
    names = {}
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        fields = line.split(maxsplit=2)
        if not fields:
            continue
        if len(fields) < 3:
            raise UserError(
                f"{file}: line {number} is '{line}'. Write synset, number and name, such as n02084071 58 dog."
            )
        names[fields[0]] = fields[2].strip()
    if not names or len(set(names.values())) < len(names):
        raise UserError(
            f"{file}: it contains no class, or the same name twice. List each class once, such as n02084071 58 dog."
        )
    return names
