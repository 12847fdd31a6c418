"""Evaluate a trained detector: ``python evaluate.py RUN [...]``, the same as ``ssd-jax evaluate``."""

import sys

if __name__ == "__main__":
    try:
        from ssd_jax.__main__ import main

        sys.exit(main(["evaluate", *sys.argv[1:]]))
    except ModuleNotFoundError as error:
        print(f"{error.name} is missing: run `make setup`, then .venv/bin/python evaluate.py ...", file=sys.stderr)
        sys.exit(2)
