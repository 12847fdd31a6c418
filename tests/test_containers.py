"""Tests of the files for containers and workflows, none of which can be run here."""

import json
import re
import shlex
import tomllib

import yaml
from helpers.paths import ROOT

EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]


def test_dockerfile_copies_what_the_wheel_is_built_from():
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    kept = {line[1:] for line in lines if line.startswith("!")}
    assert "*" in lines and {"pyproject.toml", "setup.py", "README.md", "LICENSE", "ssd_jax", "configs"} == kept
    assert all((ROOT / name).exists() for name in kept)


def test_dockerfile_and_its_guide_name_existing_extras():
    for file in ("Dockerfile", "docs/containers.md"):
        extras = re.findall(r"EXTRA=\[(\w+)\]", (ROOT / file).read_text(encoding="utf-8"))
        assert extras and set(extras) <= set(EXTRAS)


def test_devcontainer_installs_an_existing_extra():
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8"))
    (extra,) = re.findall(r"\.\[(\w+)\]", container["postCreateCommand"])
    assert extra in EXTRAS


def test_workflow_runs_the_fast_tests_on_windows_and_macos_without_make():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8"))
    job = workflow["jobs"]["other-systems"]
    assert job["strategy"]["matrix"]["system"] == ["windows-latest", "macos-latest"]
    commands = [shlex.split(step["run"]) for step in job["steps"] if "run" in step]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    tests = re.search(r"^test:.*\n\t@\"\$\(BIN\)/python\" (.*)$", makefile, re.MULTILINE)
    assert tests and commands[-1] == ["python", *shlex.split(tests[1])]
    assert not [command for command in commands if command[0] != "python"]
