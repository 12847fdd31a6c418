"""Command-line options of one process of a multi-process run.

This module does not import JAX, so that --help responds at once.
"""

from dataclasses import dataclass

from ssd_jax.errors import UserError


@dataclass(frozen=True)
class DistributedOptions:
    """Settings for connecting to the other processes of a run. By default, a run has only one process."""

    distributed: bool = False
    """Connect to the other processes that Slurm, Open MPI, Kubernetes or Cloud TPU started for this run."""
    coordinator: str = ""
    """HOST:PORT of process 0. Without a cluster manager, --process-index and --process-count are needed, too."""
    process_index: int | None = None
    """Index of this process, counted from 0."""
    process_count: int | None = None
    """Number of processes in the run."""

    def __post_init__(self) -> None:
        explicit = (bool(self.coordinator), self.process_index is not None, self.process_count is not None)
        if any(explicit) and not all(explicit):
            raise UserError("--coordinator HOST:PORT, --process-index and --process-count must be given together")
        if self.process_index is not None and not 0 <= self.process_index < (self.process_count or 0):
            raise UserError(
                f"--process-index is {self.process_index}, but must be at least 0 and less than "
                f"--process-count {self.process_count}"
            )
        host, _, port = self.coordinator.rpartition(":")
        if self.coordinator and not (host and port.isdecimal() and 0 < int(port) < 2**16):
            raise UserError(f"--coordinator is {self.coordinator}, but must be HOST:PORT, such as 10.0.0.1:12345")
