"""Tests of the project: dependencies, layers of packages, sizes of modules, side effects of imports, and configs."""

import ast
import dataclasses
import graphlib
import importlib.util
import re
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest
from helpers.paths import ROOT
from mutants import MUTANTS

from ssd_jax import config
from ssd_jax.data.class_names import COCO_CLASSES, VOC_CLASSES, VOC_NAMES_IN_COCO
from ssd_jax.runs.config_file import load_config
from ssd_jax.training.pretrained import match_classes

CONFIGS = sorted((ROOT / "configs").glob("*.py"))
SCRIPTS = ("train", "evaluate", "predict")


# A package may import only packages in rows above its own.
LAYERS = [
    ["errors", "portability", "plurals"],
    ["config_fields", "optional_packages"],
    ["config_train"],
    ["config", "files"],
    ["runtime", "ops", "models", "drawing"],
    ["data"],
    ["runs", "inputs"],
    ["inference"],
    ["exported"],
    ["metrics"],
    ["weights", "report", "predictions"],
    ["model_zoo", "web_page"],
    ["evaluation"],
    ["export"],
    ["training"],
    ["aot", "auditing", "serving", "watching"],
    ["commands"],
    ["__main__"],
]


def find_package_modules() -> dict[str, Path]:
    """Return a dict from the dotted name of each module below ssd_jax to its file. __init__ files are omitted."""
    package = ROOT / "ssd_jax"
    return {
        ".".join(path.relative_to(package).with_suffix("").parts): path
        for path in sorted(package.rglob("*.py"))
        if path.name != "__init__.py"
    }


def find_imported_names(path: Path) -> set[str]:
    """Return the absolute dotted names of the modules and objects that a file imports, also inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import; the layering test reads absolute ones"
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def find_imported_modules(path: Path) -> set[str]:
    """Return the modules of ssd_jax that a file imports, as dotted names below ssd_jax."""
    modules = find_package_modules()
    imported = set()
    for name in find_imported_names(path):
        head, _, rest = name.partition(".")
        if head != "ssd_jax" or not rest:
            continue
        # `from ssd_jax.ops.boxes import x` gives ops.boxes.x, and `from ssd_jax.ops import boxes` gives ops.boxes.
        owner = next((m for m in (rest, rest.rpartition(".")[0]) if m in modules), None)
        if owner is not None:
            imported.add(owner)
        else:
            assert rest.startswith("__"), f"{path} imports {name}, which no module of ssd_jax provides"
    return imported


def find_top_level_packages(path: Path) -> set[str]:
    """Return the names of the top-level packages that a file imports."""
    return {name.partition(".")[0] for name in find_imported_names(path)}


def load_file(path: Path) -> ModuleType:
    """Import a config file and return its module."""
    spec = importlib.util.spec_from_file_location(f"config_file_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ---- dependencies ----


def test_requirements_match_the_dependencies_with_cuda_and_the_dev_extra():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    plain_jax = [line for line in project["dependencies"] if re.match(r"jax\b(?!\[)", line)]
    assert len(plain_jax) == 1
    (cuda_jax,) = extras["cuda12"]
    assert cuda_jax == plain_jax[0].replace("jax", "jax[cuda12]", 1), "the same versions with and without CUDA"
    assert extras["tpu"] == [plain_jax[0].replace("jax", "jax[tpu]", 1)]
    wanted = [cuda_jax if line == plain_jax[0] else line for line in project["dependencies"]] + extras["dev"]
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == wanted


OPTIONAL_IMPORTS = {
    "inputs.video": {"av"},  # the extra `video`
    "inputs.camera": {"cv2"},  # the extra `camera`
    "inference.results": {"supervision"},  # the extra `supervision`
    "exported.stablehlo_file": {"jaxlib"},  # comes with jax
    "data.writers.array_records": {"array_record"},  # comes with grain, except on Windows
    "weights.torch_reference": {"torch", "torchvision"},  # the extra `parity`
    "model_zoo.hub": {"huggingface_hub"},  # the extra `hub`
    "export.onnx_detection": {"onnx"},  # the extra `onnx`, as the next three
    "export.onnx_graph": {"onnx"},
    "export.onnx_model": {"onnx"},
    "export.onnx_network": {"onnx"},
    "serving.app": {"starlette"},  # the extra `serve`, as the next ones
    "serving.bodies": {"starlette"},
    "serving.forms": {"python_multipart"},
    "serving.metrics": {"prometheus_client", "starlette"},
    "serving.parameters": {"starlette"},
    "serving.protection": {"starlette"},
    "serving.server": {"h11", "starlette", "uvicorn"},
    "watching.app": {"starlette"},
}


def test_every_import_of_the_package_is_a_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    import_name = {
        "orbax-checkpoint": "orbax",
        "pillow": "PIL",
        "protobuf": "google",
        "pyyaml": "yaml",
        "tensorflow-datasets": "tensorflow_datasets",
    }
    distributions = [re.match(r"[\w-]+", line)[0] for line in project["dependencies"]]
    allowed = {import_name.get(name, name) for name in distributions} | {"ssd_jax"} | set(sys.stdlib_module_names)
    for name, path in find_package_modules().items():
        optional = OPTIONAL_IMPORTS.get(name, set())
        extra = find_top_level_packages(path) - allowed - optional
        assert not extra, f"ssd_jax.{name} imports {sorted(extra)}, not in pyproject.toml's dependencies"


# ---- layering and size ----


def test_modules_have_at_most_500_lines():
    for name, path in find_package_modules().items():
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 500, f"ssd_jax.{name}"


DOCSTRING_FRAGMENTS = {"Of", "What", "By", "As", "Where"}


@pytest.mark.parametrize("folder", ["ssd_jax", "tests", "benchmarks", "configs", "docs"])
def test_docstrings_do_not_start_like_fragments(folder: str):
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            # Docstrings of modules, classes and functions, and the texts below fields, are such expressions.
            text = node.value.value if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) else None
            first_word = text.split(maxsplit=1)[:1] if isinstance(text, str) else []
            assert not DOCSTRING_FRAGMENTS.intersection(first_word), f"{path.relative_to(ROOT)}:{node.lineno}"


def test_files_of_tests_have_different_names():
    """Pytest imports them as modules without packages, so that two of the same name stop the whole run."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []


def test_packages_import_only_from_lower_layers():
    row = {package: number for number, packages in enumerate(LAYERS) for package in packages}
    for name, path in find_package_modules().items():
        package = "__main__" if name.endswith("__main__") else name.partition(".")[0]
        assert package in row, f"ssd_jax.{package} has no row in LAYERS of tests/test_project.py"
        for other in find_imported_modules(path):
            imported = other.partition(".")[0]
            assert imported == package or row[imported] < row[package], f"ssd_jax.{name} imports ssd_jax.{other}"


def test_modules_have_no_import_cycles():
    modules = find_package_modules()
    graphlib.TopologicalSorter({name: find_imported_modules(path) for name, path in modules.items()}).prepare()


def test_data_package_does_not_import_jax():
    for name, path in find_package_modules().items():
        if name.startswith("data."):
            assert not find_top_level_packages(path) & {"jax", "flax", "optax", "orbax", "chex"}, name


def test_importing_a_package_loads_none_of_its_modules():
    for path in (ROOT / "ssd_jax").rglob("__init__.py"):
        assert find_imported_names(path) <= {"lazy_loader"}, f"{path} imports more than lazy_loader"


def test_importing_modules_uses_no_device_and_sets_no_flag():
    program = """
import jax
before = dict(jax.config.values)
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
from jax._src import xla_bridge
assert not xla_bridge.backends_are_initialized(), "an import asked for a device"
changed = {k for k, v in jax.config.values.items() if k in before and before[k] != v}
assert not changed, f"an import set {changed}"
"""
    names = [f"ssd_jax.{name}" for name in find_package_modules()]
    result = subprocess.run([sys.executable, "-c", program, *names], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_modules_do_not_import_future_annotations():
    # With future annotations, jaxtyping would see strings instead of types.
    for path in (ROOT / "ssd_jax").rglob("*.py"):
        assert "__future__.annotations" not in find_imported_names(path), path


def test_user_errors_pass_their_lines_separately():
    """Each line is an argument of its own, because a line break inside of an argument is escaped."""
    for name, path in find_package_modules().items():
        for call in (node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)):
            if ast.unparse(call.func).endswith("UserError"):
                texts = [node.value for node in ast.walk(call) if isinstance(node, ast.Constant)]
                assert not [text for text in texts if "\n" in str(text)], f"ssd_jax.{name}:{call.lineno}"


# ---- configs ----


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_file_has_its_name_and_its_command(path: Path):
    allowed = ("ssd_jax.config.", "ssd_jax.data.class_names.")
    assert all(n.partition(".")[0] == "dataclasses" or n.startswith(allowed) for n in find_imported_names(path))
    module = load_file(path)
    assert isinstance(module.get_config(), config.Config)
    assert module.get_config().name == path.stem, "--workdir defaults to runs/<name>"
    assert hash(module.get_config()) == hash(module.get_config())
    assert module.__doc__ and f"ssd-jax train {path.stem}" in module.__doc__, (
        "the docstring contains the command that uses the config"
    )
    assert load_config(path) == module.get_config(), "config.json is read back as it was written"


# The values of the paper follow. Splits have the paper's names; section 3.3 explains 07++12. Default boxes have three
# values: the side of the input, the number of boxes (8732 in section 3.1; the others are sums over the feature maps),
# and the side of the smallest square relative to the input (0.1 for VOC, smaller for 512 and COCO: sections 3.1, 3.4).
VOC07 = ("trainval", "test")
VOC0712 = ("VOC2007/trainval+VOC2012/trainval", "VOC2007/test")
VOC0712PLUS = ("VOC2007/trainval+VOC2007/test+VOC2012/trainval", "VOC2012/test")
COCO = ("trainval35k", "minival")
ILSVRC = ("train+val1", "val2")
SSD300, SSD300_SMALL = (300, 8732, 0.1), (300, 8732, 0.07)
SSD512, SSD512_SMALL = (512, 24564, 0.07), (512, 24564, 0.04)
SSD500 = (500, 20097, 0.07)


@pytest.mark.parametrize(
    ("name", "boxes", "splits", "zoom_out", "milestones", "steps"),
    [
        # Section 3.1 has 40k, 10k and 10k steps with the three learning rates.
        ("ssd300_voc", SSD300, VOC07, False, (40_000, 50_000), 60_000),
        ("ssd512_voc", SSD512, VOC07, False, (40_000, 50_000), 60_000),
        ("ssd500_voc", SSD500, VOC07, False, (40_000, 50_000), 60_000),
        ("ssd500_voc0712", SSD500, VOC0712, False, (40_000, 50_000), 60_000),
        # The steps are from Caffe, examples/ssd/ssd_pascal.py.
        ("ssd300_voc0712", SSD300, VOC0712, True, (80_000, 100_000), 120_000),
        ("ssd512_voc0712", SSD512, VOC0712, True, (80_000, 100_000), 120_000),
        # Section 3.3 has 60k and 20k steps with the two learning rates.
        ("ssd300_voc0712plus", SSD300, VOC0712PLUS, False, (60_000,), 80_000),
        ("ssd512_voc0712plus", SSD512, VOC0712PLUS, False, (60_000,), 80_000),
        # The steps are from Caffe, examples/ssd/ssd_coco.py.
        ("ssd300_coco", SSD300_SMALL, COCO, True, (280_000, 360_000), 400_000),
        ("ssd512_coco", SSD512_SMALL, COCO, True, (280_000, 360_000), 400_000),
        # The steps are those in the names of the authors' weights, ft_iter_120000 and ft_iter_160000. The other values
        # are those without COCO; the milestone of the second pair is doubled for zoom-out (section 3.6).
        ("ssd300_voc0712_from_coco", SSD300_SMALL, VOC0712, True, (80_000, 100_000), 120_000),
        ("ssd512_voc0712_from_coco", SSD512_SMALL, VOC0712, True, (80_000, 100_000), 120_000),
        ("ssd300_voc0712plus_from_coco", SSD300_SMALL, VOC0712PLUS, True, (120_000,), 160_000),
        ("ssd512_voc0712plus_from_coco", SSD512_SMALL, VOC0712PLUS, True, (120_000,), 160_000),
        # Section 3.5 has 320k, 80k and 40k steps. Boxes and zoom-out are from Caffe, examples/ssd/ssd_ilsvrc.py.
        ("ssd300_ilsvrc", SSD300, ILSVRC, True, (320_000, 400_000), 440_000),
    ],
)
def test_published_config_follows_the_paper(
    name: str,
    boxes: tuple[int, int, float],
    splits: tuple[str, str],
    zoom_out: bool,
    milestones: tuple[int, ...],
    steps: int,
):
    published = load_file(ROOT / "configs" / f"{name}.py").get_config()
    default_boxes = published.model.default_boxes
    smallest = pytest.approx(default_boxes.min_sizes[0] / default_boxes.image_size)
    assert (default_boxes.image_size, default_boxes.count, smallest) == boxes
    assert (published.data.train_split, published.data.test_split) == splits
    assert published.augment.expand_probability == (0.5 if zoom_out else 0.0)
    assert (published.optimizer.milestones, published.train.steps) == (milestones, steps)
    assert (published.train.batch_size, published.optimizer.learning_rate) == (32, 1e-3)
    assert published.optimizer.name == "sgd"
    names = {VOC07: VOC_CLASSES, VOC0712: VOC_CLASSES, VOC0712PLUS: VOC_CLASSES, COCO: COCO_CLASSES, ILSVRC: ()}
    assert published.model.class_names == names[splits]
    pretrained = published.train.pretrained
    assert bool(pretrained) == name.endswith("_from_coco")
    if pretrained:  # its default boxes and network must be those of the pretrained run
        coco = load_file(ROOT / "configs" / f"{Path(pretrained).name}.py").get_config()
        assert coco.data.train_split == "trainval35k" and published.train.transfer
        assert dataclasses.replace(published.model, class_names=COCO_CLASSES) == coco.model
        assert len(match_classes(COCO_CLASSES, VOC_CLASSES, published.train.transfer_names).kept) == 20


def test_every_published_config_is_tested():
    (marker,) = test_published_config_follows_the_paper.pytestmark
    listed = {row[0] for row in marker.args[1]}
    assert {path.stem for path in CONFIGS} - listed == {
        "own_data",
        "own_data_512",
        "own_data_from_coco",
        "own_data_small",
        "shapes",
    }


def test_coco_class_names_map_to_voc_as_in_caffe():
    assert len(set(VOC_CLASSES)) == len(VOC_CLASSES) == 20 and list(VOC_CLASSES) == sorted(VOC_CLASSES)
    assert len(set(COCO_CLASSES)) == len(COCO_CLASSES) == 80
    # These are COCO's labels of the classes of VOC, from Caffe, data/VOC0712/coco_voc_map.txt.
    labels = [5, 2, 15, 9, 40, 6, 3, 16, 57, 20, 61, 17, 18, 4, 1, 59, 19, 58, 7, 63]
    in_coco = dict(VOC_NAMES_IN_COCO)
    assert [COCO_CLASSES.index(in_coco.get(name, name)) + 1 for name in VOC_CLASSES] == labels
    assert not set(in_coco) & set(COCO_CLASSES), "a class with the same name in COCO needs no entry"


# ---- scripts ----


@pytest.mark.parametrize("script", SCRIPTS)
def test_script_only_calls_its_command(script: str):
    path = ROOT / f"{script}.py"
    assert find_imported_names(path) == {"sys", "ssd_jax.__main__.main"}
    calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
    main_calls = [ast.unparse(c) for c in calls if ast.unparse(c.func) == "main"]
    assert main_calls == [f"main(['{script}', *sys.argv[1:]])"]
    assert not any(isinstance(n, ast.FunctionDef) for n in ast.walk(ast.parse(path.read_text())))


@pytest.mark.parametrize("script", SCRIPTS)
def test_script_recommends_make_setup_if_dependencies_are_missing(script: str):
    # With the options -I -S, the interpreter finds only the standard library.
    program = f"import runpy, sys; sys.path.insert(0, '.'); runpy.run_path('{script}.py', run_name='__main__')"
    result = subprocess.run([sys.executable, "-I", "-S", "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2, result.stderr
    assert "make setup" in result.stderr
    assert len(result.stderr.splitlines()) == 1


# ---- all files ----


def test_files_contain_no_absolute_paths():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout, so there is no list of the project's files")
    machine_path = re.compile(r"(?<![\w.:/])/(?:home|Users|root|work|mnt)/\w")
    for name in listed.stdout.splitlines():
        path = ROOT / name
        binary = {".png", ".jpg", ".gif", ".xz", ".npz", ".pth", ".h5", ".safetensors", ".ttf"}
        if path.suffix in binary or not path.is_file():
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            assert not machine_path.search(line), f"{name}:{number}: {line.strip()}"
            assert name == ".ci/run" or "../sha" + "red" not in line, f"{name}:{number}: {line.strip()}"


def test_every_mutant_changes_one_place():
    for mutant in MUTANTS:
        text = (ROOT / "ssd_jax" / f"{mutant.module}.py").read_text(encoding="utf-8")
        assert text.count(mutant.original) == 1, f"{mutant.name}: adapt it in tests/mutants.py"
        assert mutant.original != mutant.mutated
        assert all((ROOT / "tests" / f"{test}.py").is_file() for test in mutant.tests), mutant.name
