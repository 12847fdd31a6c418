"""Train a detector: ``python train.py CONFIG [--workdir RUN] [--train.steps N ...]``, the same as ``ssd-jax train``."""

import sys

if __name__ == "__main__":
    try:
        from ssd_jax.__main__ import main

        sys.exit(main(["train", *sys.argv[1:]]))
    except ModuleNotFoundError as error:
        print(f"{error.name} is missing: run `make setup`, then .venv/bin/python train.py ...", file=sys.stderr)
        sys.exit(2)
