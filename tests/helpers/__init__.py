"""Helpers that several tests use."""

from helpers import typecheck as typecheck  # pytest's option --jaxtyping-packages needs this attribute
