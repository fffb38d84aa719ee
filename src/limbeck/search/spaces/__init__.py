"""Search spaces over networks from the literature, with exact costs and the networks themselves."""

from limbeck.search.spaces import nats_size, nats_topology
from limbeck.search.spaces.chain import ChainCost
from limbeck.search.spaces.mobile_space import MobileNet
from limbeck.search.spaces.mobilenet import mobilenet_v2, mobilenet_v3_large, mobilenet_v3_small
from limbeck.search.spaces.named import Build, NamedSpace
from limbeck.search.spaces.nats_size import SyntheticSize, synthetic_problem

SPACES: dict[str, NamedSpace] = {
    "nats_topology": nats_topology.named(),
    "nats_size": nats_size.named(),
    "mobilenet_v2": mobilenet_v2().named(),
    "mobilenet_v3_small": mobilenet_v3_small().named(),
    "mobilenet_v3_large": mobilenet_v3_large().named(),
}

__all__ = [
    "SPACES",
    "Build",
    "ChainCost",
    "MobileNet",
    "NamedSpace",
    "SyntheticSize",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "mobilenet_v3_small",
    "nats_size",
    "nats_topology",
    "synthetic_problem",
]
