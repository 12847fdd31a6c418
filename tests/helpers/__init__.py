"""Helpers that several tests use."""

from helpers import typecheck as typecheck  # pytest's --jaxtyping-packages looks for it as an attribute
