"""Tests of the options and the help of commands that take a config file."""

import dataclasses
from pathlib import Path

import pytest
from helpers.cli import TINY, run_command

from ssd_jax import config
from ssd_jax.commands.config_options import parse_config_options, read_field_docs
from ssd_jax.commands.train import TrainOptions
from ssd_jax.config import Config
from ssd_jax.config_fields import RENAMED_OPTIONS
from ssd_jax.errors import UserError
from ssd_jax.runs.config_file import load_config


def parse_config(*argv: str) -> Config:
    return parse_config_options(TrainOptions, "train", [TINY, *argv]).config


# ---- parsing ----


def test_options_override_values_of_the_config_file():
    parsed = parse_config(
        "--train.steps", "7", "--optimizer.learning-rate", "0.5", "--data.no-train-on-difficult",
        "--model.class-names", "a", "b", "--optimizer.clip-norm", "None", "--augment.contrast", "0.25", "2",
    )  # fmt: skip
    base = load_config(TINY)
    assert parsed == dataclasses.replace(
        base,
        train=dataclasses.replace(base.train, steps=7),
        optimizer=dataclasses.replace(base.optimizer, learning_rate=0.5, clip_norm=None),
        data=dataclasses.replace(base.data, train_on_difficult=False),
        model=dataclasses.replace(base.model, class_names=("a", "b")),
        augment=dataclasses.replace(base.augment, contrast=(0.25, 2.0)),
    )


def test_config_without_options_equals_the_config_file():
    assert parse_config() == load_config(TINY)


def test_former_option_names_and_aliases_are_accepted():
    parsed = parse_config("--data.canvas=96", "--optimizer.adam-rate", "0.2", "--train.start-from", "coco", "--strict")
    assert (parsed.data.max_image_size, parsed.optimizer.adam_lr_multiplier) == (96, 0.2)
    assert (parsed.train.pretrained, parsed.data.strict) == ("coco", True)
    assert parse_config("--train.trunk_only", "--train.no-trunk-only") == load_config(TINY)


def test_former_option_names_are_not_current_names():
    for old, new in RENAMED_OPTIONS.items():
        for name, exists in ((old, False), (new, True)):
            section, leaf = name.split(".")
            assert hasattr(getattr(Config(), section), leaf) == exists, name


def test_config_file_may_follow_the_options():
    options = parse_config_options(TrainOptions, "train", ["--workdir", "somewhere", TINY, "--train.steps", "7"])
    assert (options.workdir, options.config.train.steps) == (Path("somewhere"), 7)


@pytest.mark.parametrize(
    "argv",
    [
        ["shapes", "--workdir", "w"],
        ["--workdir", "w", "shapes"],
        ["--data.strict", "shapes", "--workdir", "w"],
        ["--workdir", "own_data", "shapes"],
        ["--workdir", "own_data", "--data.strict", "shapes"],
    ],
)
def test_config_name_may_follow_the_options(argv):
    options = parse_config_options(TrainOptions, "train", argv)
    assert (options.config.name, options.workdir) == ("shapes", Path("own_data" if "own_data" in argv else "w"))


def test_config_file_is_found_before_a_config_name():
    options = parse_config_options(TrainOptions, "train", ["--workdir", "shapes", "--data.strict", TINY])
    assert (options.config.name, options.workdir) == ("tiny", Path("shapes"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--train.step", "5"], ["--train.step"]),
        (["--train.steps", "many"], ["--train.steps", "many"]),
        (["--train.steps", "0"], ["train.steps is 0", ">= 1"]),
        (["--optimizer.learning-rate", "inf"], ["optimizer.learning_rate is inf", "finite"]),
        (["--optimizer.name", "sdg"], ["--optimizer.name", "sdg"]),
        (["--model.default-boxes.image-size", "128"], ["feature_maps is (8, 4, 2)", "(16, 8, 4)"]),
        (["--model.extras", "5"], ["--model.extras"]),
        (["stray"], ["stray"]),
    ],
)
def test_message_about_an_invalid_option_names_the_option(run_failing_command, tmp_path, options, words):
    message = run_failing_command("train", TINY, "--workdir", tmp_path / "run", *options)
    for word in words:
        assert word in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--train.steps", "abc"], "'abc' is not a whole number"),
        (["--train.seed", "1.5"], "'1.5' is not a whole number"),
        (["--optimizer.learning-rate", "fast"], "'fast' is not a number"),
    ],
)
def test_message_about_a_word_that_is_no_number_shows_no_python(capsys, options, words):
    assert run_command("train", TINY, *options) == 2
    message = capsys.readouterr().err
    assert options[0] in message and words in message
    assert "class" not in message and "literal" not in message


def test_numbers_and_none_are_read():
    parsed = parse_config("--train.minutes", "2", "--train.eval-every", "None", "--optimizer.milestones", "0.5", "7")
    assert (parsed.train.minutes, parsed.train.eval_every, parsed.optimizer.milestones) == (2.0, None, (0.5, 7))
    assert type(parsed.train.minutes) is float and type(parsed.optimizer.milestones[1]) is int


def test_message_about_a_missing_config_file_names_the_file(run_failing_command, tmp_path):
    (tmp_path / "config.yaml").write_text("steps: 5")
    for file in (tmp_path / "typo.py", tmp_path, tmp_path / "config.yaml"):
        assert str(file) in run_failing_command("train", file)
    assert "ssd-jax configs" in run_failing_command("train")
    assert "ssd-jax configs" in run_failing_command("train", "--train.steps", "5")


# ---- help ----


@pytest.mark.parametrize("name", ["train", "check-data", "aot"])
def test_help_with_a_config_file_fits_on_a_screen(capsys, name):
    assert run_command(name, TINY, "--help") == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert len(lines) <= 40 and max(map(len, lines[1:])) <= 80 and printed.err == ""
    assert "--help-all" in printed.out and "{fixed}" not in printed.out


def test_train_help_shows_common_options_with_values_of_the_config_file(capsys):
    run_command("train", TINY, "--help")
    printed = " ".join(capsys.readouterr().out.split())
    assert "64 px" in printed
    for option, value in (
        ("data.root", "shapes"), ("data.train_split", "train"), ("train.steps", "30"), ("train.batch_size", "4"),
        ("optimizer.learning_rate", "0.002"), ("train.seed", "0"), ("train.eval_every", "14"),
    ):  # fmt: skip
        assert f"(default: {value})" in printed.partition(f"--{option} ")[2].partition(" --")[0], option
    for option in ("--workdir", "--train.pretrained"):
        assert option in printed


def test_help_all_lists_all_options_that_can_be_set(capsys):
    assert run_command("train", TINY, "--help-all") == 0
    printed = capsys.readouterr().out
    assert "{fixed}" not in printed
    for option in ("--detect.top-k-per", "--augment.crop-min-overlaps", "--devices.fsdp", "--data.shapes.seed"):
        assert option in printed
    for option in ("--model.extras", "aspect-ratios", "transfer-names", "--name"):
        assert option not in printed


def test_most_config_fields_have_docs():
    parts = [kind for kind in vars(config).values() if isinstance(kind, type) and dataclasses.is_dataclass(kind)]
    fields = [(kind.__name__, f.name) for kind in parts for f in dataclasses.fields(kind)]
    undocumented = [(kind.__name__, f.name) for kind in parts for f in dataclasses.fields(kind)
                    if f.name not in read_field_docs(kind)]  # fmt: skip
    assert len(undocumented) < len(fields) / 4
    assert read_field_docs(config.Train)["seed"].startswith("Seed of the initial parameters, the order of images")
    for kind in parts:
        for doc in read_field_docs(kind).values():
            assert "\n" not in doc and "``" not in doc


@pytest.mark.parametrize("second", ["--train.minutes", "--train.steps"])
def test_two_lengths_on_the_command_line_are_an_error(second):
    with pytest.raises(UserError) as error:
        parse_config_options(TrainOptions, "train", [TINY, "--train.epochs", "3", second, "30"])
    for word in ("train.epochs", second.removeprefix("--"), "one length"):
        assert word in str(error.value)


def test_given_length_replaces_that_of_the_file():
    def parse_train(*words: str) -> config.Train:
        return parse_config_options(TrainOptions, "train", [*words]).config.train

    train = parse_train("own_data", "--train.minutes=2.5")
    assert (train.steps, train.epochs, train.minutes, train.steps_range) == (None, None, 2.5, None)
    train = parse_train("own_data", "--train.steps", "1200")
    assert (train.steps, train.epochs, train.minutes, train.steps_range) == (1200, None, None, None)
    train = parse_train("own_data", "--train.epochs", "7")
    assert (train.steps, train.epochs, train.minutes, train.steps_range) == (None, 7, None, None)
    train = parse_train("own_data", "--train.epochs", "7", "--train.steps-range", "10", "20")
    assert (train.epochs, train.steps_range) == (7, (10, 20))
    assert (parse_train("own_data").epochs, parse_train(TINY).steps) == (15, 30)


def test_interval_of_evaluations_follows_from_minutes_unless_it_is_given():
    def parse_interval(*words: str) -> int | None:
        return parse_config_options(TrainOptions, "train", [TINY, *words]).config.train.eval_every

    assert parse_interval("--train.minutes", "3") is None
    assert parse_interval("--train.minutes", "3", "--train.eval-every", "14") == 14
    assert parse_interval("--train.minutes", "3", "--train.eval_every", "0") == 0
    assert parse_interval("--train.epochs", "3") == parse_interval("--train.steps", "3") == 14


def test_milestones_become_fractions_of_a_run_with_another_length():
    def parse_milestones(*words: str) -> tuple[float, ...]:
        return parse_config_options(TrainOptions, "train", ["ssd300_voc0712", *words]).config.optimizer.milestones

    assert parse_milestones("--train.steps", "600") == parse_milestones() == (80_000, 100_000)
    for option in ("--train.epochs", "--train.minutes"):
        assert parse_milestones(option, "5") == pytest.approx((2 / 3, 5 / 6))
    assert parse_milestones("--train.epochs", "5", "--optimizer.milestones", "100", "0.5") == (100, 0.5)
