"""The method: pure functions of arrays."""
