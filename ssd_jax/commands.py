"""The subcommands of ``ssd-jax``: what each prints and writes."""

import dataclasses
import importlib.util
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
import numpy as np
import tyro
from tqdm.auto import tqdm

from ssd_jax import check_data as checking
from ssd_jax import detector, evaluation, execution, replay, report, report_page, results, run_folder
from ssd_jax.class_names import class_difference
from ssd_jax.clean_copy import write_clean_copy
from ssd_jax.config import Config, Data
from ssd_jax.data.image import EXTENSIONS, read_image
from ssd_jax.data.loader import objects_over_padding
from ssd_jax.data.open import is_generated, is_tfds, missing_split, open_source
from ssd_jax.data.problems import Problems, Severity
from ssd_jax.data.source import Source
from ssd_jax.draw import class_colours, draw_boxes
from ssd_jax.errors import UserError
from ssd_jax.metrics import ImageDetections, format_table
from ssd_jax.training import Loop

HELP = ("-h", "--help")
T = TypeVar("T")

# ---- train ----

TRAIN_HELP = """usage: train CONFIG [--workdir RUN] [--train.steps N ...]

Trains the detector that CONFIG describes, a file such as configs/shapes.py. The same command again
goes on where the run stopped.

  train CONFIG --help          lists every option of the config with its value
  --workdir RUN                the run's folder; default runs/<name of the config>
  --data.root FOLDER           pictures and boxes to train on"""


@dataclass(frozen=True)
class TrainOptions:
    config: Annotated[Config, tyro.conf.arg(name="")]
    workdir: Path | None = None
    """Folder of the run; default runs/<config name>. If it is there already, the run goes on."""


def train(argv: Sequence[str]) -> None:
    """train CONFIG [--workdir RUN] [--train.steps N ...]: train, or go on where the run stopped."""
    if argv and argv[0] in HELP:
        print(TRAIN_HELP)
        return
    options = parse_config_options(TrainOptions, "train", argv)
    train_config(options.config, options.workdir or Path("runs") / options.config.name)


def train_config(config: Config, workdir: Path) -> None:
    """What ``train`` does, of a config made in Python. Raises UserError for all that ``train`` refuses."""
    execution.keep_freed_memory()
    config, train_source, val_source = open_data(with_start(with_root(config, config.data.root)))
    loop = Loop(config, workdir, train_source, val_source)
    going_on, changed = run_folder.start(workdir, config)
    print(f"{'Going on with' if going_on else 'New run in'} {workdir}: {describe(config)}")
    for change in changed:
        print(f"  changed: {change}")
    describe_source("train", train_source, config)
    if val_source is not None:
        describe_source("val", val_source)
        describe_overlap(train_source, val_source)
    loop.run()
    print(f"Done. Next: evaluate.py {workdir}, predict.py {workdir} IMAGES")


def parse_config_options(kind: type[T], command: str, argv: Sequence[str]) -> T:
    """Options of a command whose first argument is a config; kind is a dataclass with the field ``config``."""
    if not argv or argv[0].startswith("-"):
        raise UserError(f"{command} CONFIG [options]: name a file of configs/ first, such as configs/shapes.py")
    return tyro.cli(
        kind,
        default=kind(load_config(Path(argv[0]))),  # type: ignore[call-arg]
        args=list(argv[1:]),
        prog=f"{command} {argv[0]}",
        description=f"Options of {argv[0]}, with its values as defaults.",
    )


def load_config(file: Path) -> Config:
    """``get_config()`` of a Python file. Raises UserError if there is none, or it fails."""
    if not file.is_file():
        raise UserError(f"{file}: no such config file")
    spec = importlib.util.spec_from_file_location("user_config", file)
    if spec is None or spec.loader is None:
        raise UserError(f"{file}: not a Python file; a config is one with a function get_config()")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        config = module.get_config()
    except UserError as error:
        raise UserError(f"{file}: {error}") from None
    except (Exception, SystemExit) as error:
        raise UserError(f"{file}: {type(error).__name__}: {error}{_line_of(error, file)}") from error
    if not isinstance(config, Config):
        raise UserError(f"{file}: get_config() must return a ssd_jax.config.Config, not {type(config).__name__}")
    try:  # as config.json is read back: dataclasses take values of any type
        return msgspec.convert(msgspec.to_builtins(config), Config)
    except msgspec.ValidationError as error:
        raise UserError(f"{file}: {error}") from None


def _line_of(error: BaseException, file: Path) -> str:
    """ ", line N" of the last frame in that file."""
    trace, line = error.__traceback__, None
    while trace is not None:
        if Path(trace.tb_frame.f_code.co_filename).resolve() == file.resolve():
            line = trace.tb_lineno
        trace = trace.tb_next
    return f" (line {line})" if line else ""


def with_root(config: Config, root: str) -> Config:
    """With that data.root, made absolute, so that a run finds its data from wherever it is evaluated."""
    data = dataclasses.replace(config.data, root=root)
    if is_tfds(data):
        data = dataclasses.replace(data, tfds_dir=data.tfds_dir and str(Path(data.tfds_dir).expanduser().absolute()))
    elif root and not is_generated(data):
        data = dataclasses.replace(data, root=str(Path(root).absolute()))
    return dataclasses.replace(config, data=data)


def with_start(config: Config) -> Config:
    """With train.start_from made absolute."""
    start = config.train.start_from and str(Path(config.train.start_from).absolute())
    return dataclasses.replace(config, train=dataclasses.replace(config.train, start_from=start))


def open_data(config: Config) -> tuple[Config, Source, Source | None]:
    """The config with its class names, the train split, and the val split if training measures."""
    train_source = open_split(config, config.data.train_split)
    model = dataclasses.replace(config.model, class_names=tuple(train_source.class_names))
    config = dataclasses.replace(config, model=model)
    val_source = None
    if config.train.eval_every:
        val_source = open_val_source(config)
    for split, source in ((config.data.train_split, train_source), (config.data.val_split, val_source)):
        if source is not None and not source.annotated:
            raise UserError(
                f"{config.data.root}: the split '{split}' lists images without boxes. Name another to train and to "
                "measure on; evaluate.py can detect in this one"
            )
    return config, train_source, val_source


def open_split(config: Config, split: str) -> Source:
    """A split with the run's classes. Where the data has others, the UserError says how the lists differ."""
    try:
        return open_source(config.data, split, config.model.class_names)
    except UserError as error:
        raise UserError(f"{error}{unknown_classes(config, split)}") from error


def unknown_classes(config: Config, split: str) -> str:
    """How the data's classes differ from the run's, to follow an error; empty where the run knows them all."""
    names = config.model.class_names
    try:
        found = open_source(config.data, split, problems=Problems(stop=False)).class_names if names else ()
    except UserError:
        return ""
    if set(found) <= set(names):
        return ""
    return f"\nThe data's classes are not those of the run:\n{class_difference(names, found, there='the run')}"


def open_val_source(config: Config) -> Source:
    split = config.data.val_split
    try:
        return open_split(config, split)
    except UserError as error:
        if missing_split(config.data, split) is None:
            raise
        raise UserError(
            f"{error}\nTraining measures on it to choose the best checkpoint: name another with --data.val_split, or "
            "measure nothing with --train.eval_every 0"
        ) from None


def describe(config: Config) -> str:
    model = config.model
    return (
        f"{model.image_size} px, {model.default_boxes.count} default boxes, {len(model.class_names)} classes "
        f"({', '.join(model.class_names[:8])}{', ...' if len(model.class_names) > 8 else ''}), "
        f"{config.train.steps} steps of {config.train.batch_size} images"
    )


def describe_source(name: str, source: Source, training: Config | None = None) -> None:
    """Prints how many images there are and what is odd; of a split to train on, what teaches nothing, too."""
    print(f"{name}: {len(source)} images")
    notes = list(source.notes)
    if training is not None and source.in_memory:
        cut = objects_over_padding(source, training.data)
        if cut:
            notes.append(
                f"{cut} objects are left out of training, in images with more than {training.data.max_objects}; to "
                "have them all, raise --data.max_objects"
            )
        empty = sum(len(source.annotation(i).labels) == 0 for i in range(len(source)))
        if empty and not training.loss.min_negatives:
            notes.append(
                f"{empty} images hold no objects and teach nothing; with --loss.min_negatives 3 each counts as much as "
                "one with a single match"
            )
    for note in notes:
        print(f"  note: {note}")


def describe_overlap(train_source: Source, val_source: Source) -> None:
    """Prints how many images, by file, are both trained on and measured on while training."""
    if train_source.in_memory and val_source.in_memory:
        trained = {train_source.annotation(i).file for i in range(len(train_source))}
        shared = sum(val_source.annotation(i).file in trained for i in range(len(val_source)))
        if shared:
            print(f"  note: {shared} of the {len(val_source)} val images are trained on; mAP says nothing of new ones")


# ---- prepare-data ----


@dataclass(frozen=True)
class PrepareOptions:
    root: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="tfds:NAME")]
    """A set of tensorflow-datasets, such as tfds:voc/2007 or tfds:coco/2017."""
    archives: Path
    """Folder with the set's archives, under their original names."""
    tfds_dir: Annotated[str, tyro.conf.arg(name="data.tfds_dir")] = Data.tfds_dir
    """Where prepared sets are. Default: $TFDS_DATA_DIR, or ~/tensorflow_datasets."""
    any_checksum: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Take archives other than those whose checksums tfds knows."""


def prepare_data(argv: Sequence[str]) -> None:
    """prepare-data tfds:NAME --archives FOLDER: write a public set for reading without TensorFlow; this needs it."""
    from ssd_jax.data.prepare import prepare_tfds  # not above: nothing else waits for tensorflow-datasets

    options = tyro.cli(PrepareOptions, args=list(argv), prog="prepare-data", description=prepare_data.__doc__)
    builder = prepare_tfds(Data(root=options.root, tfds_dir=options.tfds_dir), options.archives, options.any_checksum)
    splits = ", ".join(f"{name} ({info.num_examples} images)" for name, info in builder.info.splits.items())
    where = f" --data.tfds_dir {options.tfds_dir}" if options.tfds_dir else ""
    print(f"Prepared: {builder.data_dir}: {splits}. Next: train.py CONFIG --data.root {options.root}{where}")


# ---- evaluate ----


@dataclass(frozen=True)
class EvaluateOptions:
    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of a run."""
    split: str | None = None
    """Default: the run's data.test_split, or data.val_split where the data has no such split."""
    checkpoint: Literal["best", "last"] = "best"
    """best: highest val mAP (area) while training."""
    data_root: Annotated[str | None, tyro.conf.arg(name="data.root")] = None
    """Other data than the run's, or the same at another place."""
    strict: bool = False
    """Stop at an image that can't be read; else its objects count as missed."""
    results: bool = False
    """Also write the detections into RUN/results as COCO's server takes them (of COCO data), else as VOC's does.
    Done anyway where the split has no boxes to measure on."""
    report: bool = False
    """Write report.html as well: one page with curves, intervals, mix-ups and the worst images."""


def evaluate(argv: Sequence[str]) -> None:
    """evaluate RUN [--report]: VOC's mAP and COCO's twelve numbers; the table on the screen, all in metrics.json."""
    options = tyro.cli(EvaluateOptions, args=list(argv), prog="evaluate", description=evaluate.__doc__)
    execution.keep_freed_memory()
    config = run_folder.read_config(options.run)
    if options.data_root is not None:
        config = with_root(config, options.data_root)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, strict=options.strict))
    split, source = open_evaluation_split(config, options.split)
    describe_source(split, source)
    params, step = detector.restore_params(options.run, config, options.checkpoint)
    mesh = execution.data_mesh()
    program = evaluation.make_detection_program(config, mesh)
    with tqdm(total=len(source), unit="image", dynamic_ncols=True) as bar:
        found = evaluation.detect_source(program, params, source, config, mesh, bar.update)
    if not source.annotated:
        print(f"The split {split} lists images without boxes: there is nothing to measure.")
        write_results(options.run, split, source, found)
        return
    measured = evaluation.measure(found, source)
    about = {"split": split, "images": len(source), "checkpoint_step": step}
    # What was measured on the test split stays when another is looked at.
    by_default = options.split in (None, config.data.test_split)
    suffix = "" if by_default else f"_{report.file_name(split)}"
    file = options.run / f"metrics{suffix}.json"
    run_folder.write_text(file, json.dumps({**about, **measured}, indent=2) + "\n")
    report.write_truth_and_predictions(options.run, split, source, found)
    print(format_results(measured))
    print(
        f"Split {split}, checkpoint of step {step}. Written: {file}, {report.file_name(split)}_truth.jpg and "
        f"{report.file_name(split)}_pred.jpg beside it"
    )
    if options.report:
        page = options.run / f"report{suffix}.html"
        report_page.write_report(page, config, source, found, {**about, **measured})
        print(f"Report: {page}, to open in a browser")
    if options.results:
        write_results(options.run, split, source, found)


def write_results(run: Path, split: str, source: Source, found: Sequence[ImageDetections]) -> None:
    files = results.write_results(run / "results", split, run.resolve().name, source, found)
    print(f"For the server: {files[0]}{f' and {len(files) - 1} others' if len(files) > 1 else ''}")


def open_evaluation_split(config: Config, split: str | None) -> tuple[str, Source]:
    """The split asked for; else data.test_split; else, where the data has none such, data.val_split."""
    if split is None:
        split = config.data.test_split
        missing = missing_split(config.data, split)
        if missing:
            split = config.data.val_split
            print(f"{missing} Measuring on '{split}' instead, the split that the best checkpoint was chosen on.")
    return split, open_split(config, split)


COCO_LINES = (
    ("coco_ap", "AP @ IoU .50:.95"), ("coco_ap50", "AP @ IoU .50"), ("coco_ap75", "AP @ IoU .75"),
    ("coco_ap_small", "AP, small objects (area < 32^2)"), ("coco_ap_medium", "AP, medium"),
    ("coco_ap_large", "AP, large (area > 96^2)"),
    ("coco_ar1", "AR, 1 detection an image"), ("coco_ar10", "AR, 10"), ("coco_ar100", "AR, 100"),
    ("coco_ar_small", "AR, small"), ("coco_ar_medium", "AR, medium"), ("coco_ar_large", "AR, large"),
)  # fmt: skip


def format_results(measured: Any) -> str:
    """VOC's table by class, then COCO's twelve lines."""
    lines = [format_table(measured), "", "COCO protocol:"]
    for key, label in COCO_LINES:
        value = measured[key]
        lines.append(f"  {label:34} {'-' if value is None else f'{value:.4f}'}")
    return "\n".join(lines)


# ---- predict ----

OTHER_OUT = "Name another --out."
PREDICTIONS = "predictions.json"


@dataclass(frozen=True)
class PredictOptions:
    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of a run."""
    images: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGES")]
    """Images, and folders with images."""
    out: Path = Path("predictions")
    """Folder for the annotated pictures and predictions.json: a new one, or that of earlier predictions."""
    score: float = 0.5
    """Show and write detections from this score up."""
    checkpoint: Literal["best", "last"] = "best"


def predict(argv: Sequence[str]) -> None:
    """predict RUN IMAGES...: annotated pictures, and predictions.json with names, scores, boxes in pixels."""
    options = tyro.cli(PredictOptions, args=list(argv), prog="predict", description=predict.__doc__)
    execution.keep_freed_memory()
    if not options.images:
        raise UserError("predict RUN IMAGES: name at least one image, or a folder with images")
    if not 0 <= options.score <= 1:
        raise UserError(f"--score is {options.score}, must lie in [0, 1]")
    check_out(options.out, PREDICTIONS)
    targets = picture_targets(options.images, options.out)
    detect = detector.load(options.run, options.checkpoint)
    with run_folder.writing(options.out, OTHER_OUT):  # before all the work
        options.out.mkdir(parents=True, exist_ok=True)
    write_predictions(options.out, [])
    colours = class_colours(detect.class_names)
    written, unreadable, best = [], [], 0.0
    for file, target in tqdm(targets.items(), unit="image", dynamic_ncols=True, disable=len(targets) == 1):
        try:
            image = read_image(file)
        except UserError as error:
            unreadable.append(str(error))
            continue
        found = detect(image, score_threshold=0.0)
        best = max(best, *(d.score for d in found), 0.0)
        found = [d for d in found if d.score >= options.score]
        save_picture(target, image, found, colours)
        written.append({
            "file": str(file), "width": image.shape[1], "height": image.shape[0], "picture": str(target),
            "detections": [{"name": d.name, "score": d.score, "box": list(d.box)} for d in found],
        })  # fmt: skip
    write_predictions(options.out, written)
    if written:
        count = sum(len(w["detections"]) for w in written)
        below = "" if count else f" (the best score is {best:.2f}; --score shows lower ones)"
        print(
            f"{count} detections in {len(written)} images from score {options.score} up{below}. Pictures and "
            f"{PREDICTIONS} are in {options.out}"
        )
    if unreadable:
        raise UserError("\n".join([f"{len(unreadable)} of {len(targets)} images could not be read:", *unreadable]))


def picture_targets(images: Sequence[Path], out: Path) -> dict[Path, Path]:
    """Every image to read, and where its annotated picture goes: under out as under the folder named.

    Raises UserError where there are no images, and where two would be written to one file.
    """
    targets: dict[Path, Path] = {}
    for path in images:
        root = path if path.is_dir() else path.parent
        for file in detector.find_images(path, leaving_out=out):
            targets[file] = picture_path(out, file.relative_to(root))
    sources: dict[Path, Path] = {}
    for file, target in targets.items():
        other = sources.setdefault(target, file)
        if other != file:
            raise UserError(f"{other} and {file} would both be drawn as {target}: give each an --out of its own")
    return targets


def check_out(out: Path, own: str) -> None:
    """Raises UserError for a folder with other things in it, photographs say: pictures of the same names
    would replace them. own: a file that tells that the command wrote there before."""
    with run_folder.writing(out, OTHER_OUT):
        others = out.is_dir() and any(out.iterdir()) and not (out / own).exists()
    if others:
        raise UserError(f"--out {out}: there are other things in it. {OTHER_OUT}")


def write_predictions(out: Path, images: list[dict[str, Any]]) -> None:
    text = json.dumps({"boxes": "x1, y1, x2, y2 in pixels of the original image", "images": images}, indent=1)
    run_folder.write_text(out / PREDICTIONS, text + "\n")


def picture_path(out: Path, relative: Path) -> Path:
    """Under ``out`` as under the folder read; the ending stays in the name, so a.png and a.jpg do not collide."""
    suffix = relative.suffix.lower()
    return out / (relative if suffix in (".jpg", ".jpeg") else relative.with_name(relative.name + ".jpg"))


def save_picture(target: Path, image: np.ndarray, found: list[detector.Detection], colours: dict) -> None:
    boxes = np.array([d.box for d in found], np.float32).reshape(-1, 4)
    scores = np.array([d.score for d in found], np.float32)
    picture = draw_boxes(image, boxes, [d.name for d in found], scores, colours=colours)
    with run_folder.writing(target, OTHER_OUT):
        target.parent.mkdir(parents=True, exist_ok=True)
        picture.save(target, quality=92)


# ---- show ----


@dataclass(frozen=True)
class ShowOptions:
    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of a run."""
    image: str
    """Id of an image of the run's train split: a VOC file's name without ending, a COCO file_name."""
    epoch: int
    """Pass over the train split, from 0."""
    out: Path | None = None
    """File of the picture; default RUN/shown/<image>_epoch<epoch>.jpg."""
    data_root: Annotated[str | None, tyro.conf.arg(name="data.root")] = None
    """The run's data at another place."""


def show(argv: Sequence[str]) -> None:
    """show RUN --image ID --epoch E: an image with its boxes, beside it what the network saw of it in that epoch."""
    options = tyro.cli(ShowOptions, args=list(argv), prog="show", description=show.__doc__)
    if options.out is not None and options.out.suffix.lower() not in EXTENSIONS:
        raise UserError(f"--out {options.out}: end its name in .jpg or .png")
    config = run_folder.read_config(options.run)
    if options.data_root is not None:
        config = with_root(config, options.data_root)
    source = open_source(config.data, config.data.train_split, config.model.class_names)
    seen = replay.see_again(config, source, options.image, options.epoch)
    name = options.image.replace("/", "_")  # an id may be a path
    out = options.out or options.run / "shown" / f"{name}_epoch{options.epoch}.jpg"
    picture = replay.draw(source, seen)
    with run_folder.writing(out, OTHER_OUT):
        out.parent.mkdir(parents=True, exist_ok=True)
        picture.save(out, quality=92)
    lost = len(source.annotation(seen.index).labels) - int((seen.labels > 0).sum())
    print(f"{options.image}, epoch {options.epoch}: step {seen.step} of {config.train.steps}. Written: {out}")
    if lost:
        print(f"{lost} of its objects the network did not see: outside the picture, or not to be trained on.")


# ---- check-data ----

CHECK_DATA_HELP = """usage: check-data CONFIG [--data.root FOLDER] [--out FOLDER] [--no-images] ...

Reads the data set that CONFIG and its options name, with the options of train, and tells what is
wrong with it, file by file and box by box, what is in it, and how much of it the config's default
boxes can't match. Exit code: 0, nothing to mend; 1, there is; 2, it could not be read at all.

  check-data CONFIG --help     lists every option
  --no-images                  annotations alone: seconds for ten thousand files
  --fix FOLDER                 writes a cleaned copy there"""


@dataclass(frozen=True)
class CheckDataOptions:
    config: Annotated[Config, tyro.conf.arg(name="")]
    out: Path = Path("data_check")
    """Folder for problems.csv, check.json, data.png (classes, sizes) and <split>_samples.jpg."""
    images: bool = True
    """Decode every image too, and compare their pixels."""
    fix: Path | None = None
    """A new folder for a copy without what is wrong, in COCO's layout: boxes cut to their image, repeated and
    empty ones gone, unusable and repeated images left out, all upright and RGB. The data stay as they are."""


def check_data(argv: Sequence[str]) -> int:
    """check-data CONFIG [--data.root FOLDER]: what is wrong with a data set, and which boxes are out of reach."""
    if argv and argv[0] in HELP:
        print(CHECK_DATA_HELP)
        return 0
    options = parse_config_options(CheckDataOptions, "check-data", argv)
    config = with_root(options.config, options.config.data.root)
    check_out(options.out, "check.json")
    if options.fix is not None and not options.images:
        raise UserError("--fix needs to see the images: leave out --no-images")
    problems = Problems(stop=False)
    try:
        splits = checking.open_splits(config, problems)
    except UserError:
        if problems.found:
            print(checking.format_problems(problems.found))
        raise
    checking.check_annotations(splits, config.data, problems)
    total = sum(map(len, splits.values()))
    digests: dict[str, bytes] = {}
    if options.images:
        with tqdm(total=total, unit="image", dynamic_ncols=True) as bar:
            digests = checking.check_images(splits, problems, bar.update)
    counts = {split: checking.count_split(source) for split, source in splits.items()}
    ceiling = checking.measure_ceiling(splits[config.data.train_split], config)
    print(checking.format_problems(problems.found), end="\n\n")
    print(checking.format_counts(counts, ceiling), end="\n\n")
    print(checking.format_ceiling(ceiling, config), end="\n\n")
    checking.write_check(options.out, config, splits, counts, ceiling, problems.found)
    print(f"Written to {options.out}: problems.csv (all of them), check.json, data.png, pictures with their boxes")
    if options.fix is not None:
        with tqdm(total=total, unit="image", dynamic_ncols=True) as bar:
            kept = write_clean_copy(options.fix, splits, digests, bar.update)
        told = ", ".join(f"{split} {images} of {len(splits[split])} images" for split, images in kept.items())
        print(f"Cleaned copy in {options.fix}: {told}. VOC's difficult objects are ordinary ones there")
    return int(any(p.kind.severity is not Severity.NOTE for p in problems.found))


COMMANDS: dict[str, Callable[[Sequence[str]], int | None]] = {
    "prepare-data": prepare_data,
    "check-data": check_data,
    "train": train,
    "evaluate": evaluate,
    "predict": predict,
    "show": show,
}


def main(argv: Sequence[str]) -> int:
    """Runs a subcommand; returns the exit code. A user's mistake is 2, without a traceback."""
    if argv and argv[0] in HELP:
        print(usage())
        return 0
    if not argv or argv[0] not in COMMANDS:
        print(f"error: no command '{argv[0]}'\n" if argv else "", usage(), sep="", file=sys.stderr)
        return 2
    try:
        return COMMANDS[argv[0]](argv[1:]) or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def usage() -> str:
    lines = [f"  {command.__doc__}" for command in COMMANDS.values()]
    return "\n".join(["usage: ssd-jax COMMAND ...\n", *lines, "\nssd-jax COMMAND --help tells its options."])
