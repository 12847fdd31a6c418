"""A fixture for tests that compile many small programs and run each of them once."""

from collections.abc import Iterator

import jax
import pytest


@pytest.fixture(autouse=True, scope="module")
def fast_compilation() -> Iterator[None]:
    """Switch the slow optimizations of the compiler off, which more than halves the time of compilation."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
