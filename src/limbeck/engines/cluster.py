"""A Ray cluster, and how many threads compute on its nodes."""

import importlib.util
import os
from dataclasses import dataclass
from types import ModuleType
from typing import Self

import torch
from threadpoolctl import threadpool_info, threadpool_limits

from limbeck.engines.config import RayConfig
from limbeck.errors import ConfigError, missing_extra


def require_ray() -> ModuleType:
    """Import Ray, which must neither report its use nor serve a page.

    Raises:
        MissingExtraError: it is not installed.
    """
    if importlib.util.find_spec("ray") is None:
        raise missing_extra("ray", "ray")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    return ray


def join_cluster(ray: ModuleType, config: RayConfig) -> bool:
    """Join the cluster, or start one; give whether it was started here and is ours to end.

    Raises:
        ConfigError: there is none at the address.
    """
    if ray.is_initialized():
        return False
    try:
        ray.init(
            address=config.address or None,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"ray.address={config.address!r}: no Ray cluster can be used there "
            f"({' '.join(str(error).split())[:200]}); start one with `ray start --head`, "
            f"or leave the address out."
        ) from error
    return True


@dataclass(frozen=True, slots=True)
class Threads:
    """How many threads compute: sums of floats depend on it.

    Args:
        torch: Threads of torch.
        pools: Threads of the libraries below numpy and scikit-learn, by kind ("blas", "openmp").
    """

    torch: int
    pools: dict[str, int]

    @classmethod
    def here(cls) -> Self:
        """Those of this process."""
        pools: dict[str, int] = {}
        for pool in threadpool_info():
            kind = str(pool["user_api"])
            pools[kind] = max(pools.get(kind, 1), int(pool["num_threads"]))
        return cls(torch.get_num_threads(), pools)

    def apply(self) -> None:
        """Compute like this from now on, in libraries that are loaded and in those to come."""
        torch.set_num_threads(self.torch)
        threadpool_limits(self.pools)
        os.environ["OMP_NUM_THREADS"] = str(self.pools.get("openmp", self.torch))
        os.environ["OPENBLAS_NUM_THREADS"] = str(self.pools.get("blas", self.torch))
