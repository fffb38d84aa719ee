"""Every search that is registered or installed passes the suite that users run on their own."""

import pytest
import torch

from limbeck.registry import names
from limbeck.search import SEARCHES, Cost, LayerNAS, Searcher, paper, search_class
from limbeck.testing import SearchSuite


class TestSearches(SearchSuite):
    @pytest.fixture(autouse=True, params=names("searches", SEARCHES))
    def subject(self, request: pytest.FixtureRequest) -> None:
        self.name = request.param

    def make(self, cost: Cost, limit: float, seed: int) -> Searcher:
        return search_class(self.name)(cost, limit, generator=torch.Generator().manual_seed(seed))

    def test_it_is_registered_under_its_own_name(self) -> None:
        assert search_class(self.name).name == self.name


class TestTheLiteralReading(SearchSuite):
    def make(self, cost: Cost, limit: float, seed: int) -> Searcher:
        return LayerNAS(cost, limit, paper(), generator=torch.Generator().manual_seed(seed))
