# `make` without a target lists all targets. Everything is installed into $(VENV) and nowhere else.
#
#   make demo PYTHON=python3.12     use another interpreter
#   make demo ACCELERATOR=cpu       install jax for cpu, cuda12 or tpu; detected if not given

PYTHON ?= python3
VENV ?= .venv
PARITY_VENV ?= .venv-parity
AOT_VENV ?= .venv-aot
DEMO ?= runs/demo

# cuda12 takes gigabytes, so it is chosen only if an NVIDIA driver answers.
ACCELERATOR ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo cuda12 || echo cpu)
EXTRAS = $(filter-out cpu,$(ACCELERATOR))
comma := ,

BIN = $(VENV)/bin
PIP = "$(BIN)/python" -m pip --disable-pip-version-check install --quiet

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev demo test test-all mutants docs site wheel parity bench bench-quick aot lint format clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: $(VENV)/.ready ## install the package and its dependencies into .venv

setup-dev: $(VENV)/.ready-dev ## setup, plus the test dependencies

demo: $(VENV)/.ready ## detect cells with a bundled detector, train on generated images, and evaluate
	@"$(BIN)/python" -m ssd_jax demo --out "$(DEMO)"

# Two processes run the tests; each one runs whole test files.
test: lint ## lint, types and the fast tests
	@"$(BIN)/python" -m pytest -n 2 --dist loadfile -m "not slow"

test-all: lint ## lint, types and all tests, with those marked slow
	@JAX_DISABLE_MOST_OPTIMIZATIONS=0 "$(BIN)/python" -m pytest -n 2 --dist loadfile

mutants: $(VENV)/.ready-dev ## break the code in many small ways; the fast tests have to notice (an hour)
	@"$(BIN)/python" tests/mutants.py

docs: $(VENV)/.ready-docs ## build the documentation into build/docs; a broken link or reference fails
	@"$(BIN)/python" -m sphinx -b html -W --keep-going -q -d build/doctrees docs build/docs
	@echo "Open build/docs/index.html"

# docs/conf.py adds what lies in build/page to the site. The page contains onnxruntime-web from the npm registry (33 MB).
site: $(VENV)/.ready-site ## build the documentation with a page that detects blood cells in the browser
	@"$(BIN)/python" -m ssd_jax export blood-cells --format web --out build/page/blood-cells
	@$(MAKE) --no-print-directory docs

wheel: $(VENV)/.ready-dev ## build the sdist and, from it, the wheel into dist
	@"$(BIN)/python" -m build --no-isolation --outdir dist . >/dev/null
	@echo "Built:"; ls dist

parity: ## compare with torch and torchvision, in a .venv-parity of its own (5.5 GB)
	@$(MAKE) --no-print-directory VENV="$(PARITY_VENV)" ACCELERATOR=cpu "$(PARITY_VENV)/.ready-parity"
	@JAX_PLATFORMS=cpu "$(PARITY_VENV)/bin/python" -m pytest tests/parity

BENCH ?=
bench: ## compare speed with torchvision and pycocotools (BENCH="--batch 32" on a GPU), in the environment of parity
	@$(MAKE) --no-print-directory VENV="$(PARITY_VENV)" "$(PARITY_VENV)/.ready-parity"
	@"$(PARITY_VENV)/bin/python" -m benchmarks.speed --json runs/bench.json $(BENCH)

bench-quick: $(VENV)/.ready-dev ## check that nothing became slower, in one to two minutes
	@"$(BIN)/python" -m benchmarks.quick

aot: ## compile for TPUs and GPUs that are not present, in a .venv-aot of its own (2.5 GB), and compare costs
	@$(MAKE) --no-print-directory VENV="$(AOT_VENV)" ACCELERATOR=cpu "$(AOT_VENV)/.ready-aot"
	@SSD_JAX_AOT=1 JAX_PLATFORMS=cpu "$(AOT_VENV)/bin/python" -m pytest tests/aot

lint: $(VENV)/.ready-dev ## lint, format and types
	@"$(BIN)/ruff" check .
	@"$(BIN)/ruff" format --check .
	@"$(BIN)/mypy"

format: $(VENV)/.ready-dev ## apply automatic fixes and formatting
	@"$(BIN)/ruff" check --fix .
	@"$(BIN)/ruff" format .

clean: ## remove the environments and caches; runs stay
	rm -rf "$(VENV)" "$(PARITY_VENV)" "$(AOT_VENV)" .cache .mypy_cache .pytest_cache .ruff_cache build dist *.egg-info

$(VENV)/.ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Python 3.11 or newer is needed, and '$(PYTHON)' is `$(PYTHON) --version 2>&1 || true`."; \
	  echo "Install one, or name it: make PYTHON=python3.12 ..."; exit 2; } >&2
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "'$(PYTHON)' has no venv module. On Debian and Ubuntu: sudo apt install python3-venv"; exit 2; } >&2
	@echo "Setting up $(VENV) with jax for $(ACCELERATOR) (a few minutes, once)..."
	@$(PYTHON) -m venv "$(VENV)"
	@$(PIP) --editable ".$(if $(EXTRAS),[$(EXTRAS)])"
	@touch "$@"

$(VENV)/.ready-dev: $(VENV)/.ready
	@echo "Adding the test dependencies to $(VENV)..."
	@$(PIP) --editable ".[dev$(if $(EXTRAS),$(comma)$(EXTRAS))]"
	@touch "$@"

$(VENV)/.ready-docs: $(VENV)/.ready
	@echo "Adding the documentation tools to $(VENV)..."
	@$(PIP) --editable ".[docs]"
	@touch "$@"

$(VENV)/.ready-site: $(VENV)/.ready-docs
	@$(PIP) --editable ".[docs,onnx]"
	@touch "$@"

$(VENV)/.ready-parity: $(VENV)/.ready-dev
	@echo "Adding torch and torchvision to $(VENV)..."
	@$(PIP) --editable ".[dev,parity]"
	@touch "$@"

$(VENV)/.ready-aot: $(VENV)/.ready-dev
	@echo "Adding the compilers for TPUs and GPUs to $(VENV)..."
	@$(PIP) --editable ".[dev,aot]"
	@jax=`"$(BIN)/python" -c 'from importlib.metadata import version; print(version("jax"))'` && \
	  $(PIP) --no-deps "jax-cuda12-plugin==$$jax" "jax-cuda12-pjrt==$$jax"
	@touch "$@"
