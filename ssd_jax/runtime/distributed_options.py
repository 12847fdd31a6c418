"""Options of a process in a multi-process run. Does not import JAX, so that --help answers at once."""

from dataclasses import dataclass

from ssd_jax.errors import UserError


@dataclass(frozen=True)
class DistributedOptions:
    """How this process finds the others of its run; by default it is alone."""

    distributed: bool = False
    """One of several processes, as Slurm, Open MPI, Kubernetes or Cloud TPU have started them."""
    coordinator: str = ""
    """HOST:PORT of process 0, where nobody tells. With --process-index and --process-count."""
    process_index: int | None = None
    process_count: int | None = None

    def __post_init__(self) -> None:
        by_hand = (bool(self.coordinator), self.process_index is not None, self.process_count is not None)
        if any(by_hand) and not all(by_hand):
            raise UserError("--coordinator HOST:PORT, --process-index and --process-count go together")
        if self.process_index is not None and not 0 <= self.process_index < (self.process_count or 0):
            raise UserError(
                f"--process-index is {self.process_index}, must lie in 0 to --process-count {self.process_count} - 1"
            )
        host, _, port = self.coordinator.rpartition(":")
        if self.coordinator and not (host and port.isdecimal() and 0 < int(port) < 2**16):
            raise UserError(f"--coordinator is {self.coordinator}, must be HOST:PORT, such as 10.0.0.1:12345")
