"""What every rule for choosing rows must do, whoever wrote it."""

from abc import ABC, abstractmethod

import torch

from limbeck.errors import ConfigError
from limbeck.select import Arrays, Selection, Selector

_POOL = 40


class SelectorSuite(ABC):
    """Tests of one rule; derive from it and say how it is made."""

    @abstractmethod
    def make(self) -> Selector:
        """A new rule that remembers nothing; equal ones each time."""

    def candidates(self, rows: torch.Tensor, *, seed: int = 0, ties: bool = False) -> Arrays:
        """Made-up candidates of a pool of 40 rows, whose numbers depend on the row alone."""
        g = torch.Generator().manual_seed(seed)
        logits = 2 * torch.randn(_POOL, 3, generator=g)
        embeddings = torch.randn(_POOL, 5, generator=g)
        if ties:
            logits, embeddings = torch.zeros_like(logits), torch.ones_like(embeddings)
        known = torch.randn(3, 5, generator=g)
        probs = torch.softmax(logits, dim=1)
        errors = 0.4 * torch.rand(_POOL, generator=g)
        if ties:
            errors = torch.full_like(errors, 0.2)
        return Arrays(rows, probs[rows], embeddings[rows], known, _POOL, errors[rows])

    def batch(self, k: int, seed: int = 0, rule: Selector | None = None) -> Selection:
        """k of all 40 rows, by a new rule unless one is given."""
        generator = torch.Generator().manual_seed(seed)
        return (rule or self.make()).select(self.candidates(torch.arange(_POOL)), k, generator)

    def test_exactly_k_distinct_rows_in_order_with_their_probabilities(self) -> None:
        for k in (0, 1, 7, _POOL):
            found = self.batch(k)
            rows = found.rows.tolist()
            assert rows == sorted(set(rows))
            assert len(rows) == k
            assert set(rows) <= set(range(_POOL))
            if found.inclusion_probs is not None:
                assert found.inclusion_probs.shape == (k,)
                assert found.inclusion_probs.dtype == torch.float64
                assert bool(((found.inclusion_probs > 0) & (found.inclusion_probs <= 1)).all())
            if found.candidate_probs is not None:
                assert found.candidate_probs.shape == (_POOL,)
                assert abs(float(found.candidate_probs.sum()) - k) < 1e-6
                assert found.inclusion_probs is not None
                assert torch.equal(found.candidate_probs[found.rows], found.inclusion_probs)

    def test_only_candidates_are_chosen_and_all_of_them_when_more_are_wanted(self) -> None:
        rows = torch.tensor([3, 8, 9, 21, 39])
        generator = torch.Generator().manual_seed(0)
        assert set(self.make().select(self.candidates(rows), 2, generator).rows.tolist()) <= set(
            rows.tolist()
        )
        assert (
            self.make().select(self.candidates(rows), 9, generator).rows.tolist() == rows.tolist()
        )

    def test_one_row_and_no_row(self) -> None:
        generator = torch.Generator().manual_seed(0)
        one = self.make().select(self.candidates(torch.tensor([5])), 1, generator)
        assert one.rows.tolist() == [5]
        none = self.make().select(self.candidates(torch.zeros(0, dtype=torch.int64)), 3, generator)
        assert none.rows.tolist() == []

    def test_rows_that_are_all_alike_still_fill_a_batch(self) -> None:
        rows, generator = torch.arange(_POOL), torch.Generator().manual_seed(0)
        found = self.make().select(self.candidates(rows, ties=True), 10, generator)
        assert len(set(found.rows.tolist())) == 10

    def test_a_seed_gives_the_same_rows_and_inputs_are_unchanged(self) -> None:
        candidates = self.candidates(torch.arange(_POOL))
        assert candidates.embedding is not None
        before = (candidates.probabilities.clone(), candidates.embedding.clone())
        state = torch.random.get_rng_state()
        first, again = self.batch(7, 3), self.batch(7, 3)
        assert torch.equal(first.rows, again.rows)
        self.make().select(candidates, 7, torch.Generator().manual_seed(0))
        assert torch.equal(candidates.probabilities, before[0])
        assert torch.equal(candidates.embedding, before[1])
        assert torch.equal(torch.random.get_rng_state(), state)

    def test_rounds_never_choose_a_row_twice_and_survive_saving_at_any_point(self) -> None:
        whole = self._rounds(save_at=-1)
        assert len({row for batch in whole for row in batch}) == sum(map(len, whole))
        for step in range(6):
            assert self._rounds(save_at=step) == whole

    def test_probabilities_that_are_no_numbers_are_refused(self) -> None:
        rule = self.make()
        if "probs" not in rule.needs:
            return
        good = self.candidates(torch.arange(_POOL))
        probs = good.probabilities.clone()
        probs[3, 0] = torch.nan
        bad = Arrays(good.rows, probs, good.embedding, good.known, _POOL, good.teacher_error)
        assert "NaN" in self._refusal(rule, bad)

    def test_embeddings_that_are_no_numbers_are_refused(self) -> None:
        rule = self.make()
        if "embeddings" not in rule.needs:
            return
        good = self.candidates(torch.arange(_POOL))
        assert good.embedding is not None
        for value in (torch.nan, torch.inf):
            embedding = good.embedding.clone()
            embedding[3, 0] = value
            bad = Arrays(
                good.rows, good.probabilities, embedding, good.known, _POOL, good.teacher_error
            )
            assert "NaN" in self._refusal(rule, bad)

    def test_numbering_the_pool_anew_numbers_the_batch_anew(self) -> None:
        """Equal probabilities where the rule tells them, else as often up to chance."""
        old = self.candidates(torch.arange(_POOL))
        order = torch.randperm(_POOL, generator=torch.Generator().manual_seed(5))
        assert isinstance(old.teacher_error, torch.Tensor)
        assert old.embedding is not None
        new = Arrays(
            old.rows,
            old.probabilities[order],
            old.embedding[order],
            old.known,
            _POOL,
            old.teacher_error[order],
        )
        told, counts = torch.full((2, _POOL), torch.nan), torch.zeros(2, _POOL)
        draws = 120
        for turn, (candidates, name) in enumerate(((old, old.rows), (new, order))):
            for seed in range(draws):
                generator = torch.Generator().manual_seed(seed)
                found = self.make().select(candidates, 6, generator)
                counts[turn, name[found.rows]] += 1
                if found.inclusion_probs is not None:
                    told[turn, name[found.rows]] = found.inclusion_probs.float()
        both = ~told.isnan().any(dim=0)
        assert bool(((told[0] - told[1])[both].abs() <= 1e-5).all())
        share = counts.mean(dim=0) / draws
        error = (2 * share * (1 - share) / draws).sqrt()
        assert bool(((counts[0] - counts[1]).abs() / draws <= 5 * error).all())

    def test_a_negative_batch_is_refused(self) -> None:
        told = ""
        try:
            self.batch(-1)
        except ConfigError as error:
            told = str(error)
        assert "k=-1" in told

    def _refusal(self, rule: Selector, candidates: Arrays) -> str:
        """What a rule says to candidates that it refuses."""
        try:
            rule.select(candidates, 5, torch.Generator().manual_seed(0))
        except ConfigError as error:
            return str(error)
        return ""

    def _rounds(self, *, save_at: int) -> list[list[int]]:
        """Three rounds of five; after step `save_at` the rule is made anew from its state."""
        rule, generator = self.make(), torch.Generator().manual_seed(1)
        rows, batches, step = torch.arange(_POOL), [], 0
        for turn in range(3):
            candidates = self.candidates(rows, seed=turn)
            found = rule.select(candidates, 5, generator)
            batches.append(found.rows.tolist())
            if step == save_at:
                rule = self._again(rule)
            step += 1
            after = self.candidates(rows, seed=turn + 1).probabilities
            rule.observe(rows, 1 - after.amax(dim=1))
            if step == save_at:
                rule = self._again(rule)
            step += 1
            rows = rows[~torch.isin(rows, found.rows)]
        return batches

    def _again(self, rule: Selector) -> Selector:
        fresh = self.make()
        fresh.load_state_dict(rule.state_dict())
        return fresh
