"""Where the checkout, the tests and the files they read are."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"
ASSETS = TESTS / "assets"
