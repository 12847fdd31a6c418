"""Detect objects in images: ``python predict.py RUN IMAGES... [...]``, the same as ``ssd-jax predict``."""

import sys

if __name__ == "__main__":
    try:
        from ssd_jax.__main__ import main

        sys.exit(main(["predict", *sys.argv[1:]]))
    except ModuleNotFoundError as error:
        print(f"{error.name} is missing: run `make setup`, then .venv/bin/python predict.py ...", file=sys.stderr)
        sys.exit(2)
