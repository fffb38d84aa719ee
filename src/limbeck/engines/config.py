"""Settings of the engine that asks teachers on a cluster."""

from dataclasses import dataclass

from limbeck.errors import ConfigError


@dataclass(frozen=True, slots=True)
class RayConfig:
    """Where and how `engine = "ray"` asks. None of it changes an answer."""

    address: str = ""
    """Address of a Ray cluster, such as auto or host:6379. Default: RAY_ADDRESS, or the cluster
    that runs on this machine, or one that is started for the run."""
    actors: int = 0
    """Copies of the teacher. Default 0: as many as the cluster has room for."""
    gpus: float = 0.0
    """GPUs of each copy, a share or a whole number; 0 answers on the CPU."""

    def __post_init__(self) -> None:
        if self.actors < 0:
            raise ConfigError(f"ray.actors={self.actors}: must be >= 0; 0 fills the cluster.")
        if not 0 <= self.gpus < float("inf"):
            raise ConfigError(f"ray.gpus={self.gpus}: must be >= 0 and finite; 0 uses the CPU.")
