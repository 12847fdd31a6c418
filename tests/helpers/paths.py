"""Paths of the checkout, the tests and their assets."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"
ASSETS = TESTS / "assets"
