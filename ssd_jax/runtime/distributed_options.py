"""Command-line options of a process in a multi-process run. Does not import JAX, so that --help answers at once."""

from dataclasses import dataclass

from ssd_jax.errors import UserError


@dataclass(frozen=True)
class DistributedOptions:
    """How this process finds the other processes of its run. By default there are none."""

    distributed: bool = False
    """Join the other processes that Slurm, Open MPI, Kubernetes or Cloud TPU started."""
    coordinator: str = ""
    """HOST:PORT of process 0. Required, with --process-index and --process-count, if no cluster provides it."""
    process_index: int | None = None
    """Index of this process, from 0."""
    process_count: int | None = None
    """Number of processes of the run."""

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
