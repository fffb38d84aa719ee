"""The suites find what they are there to find."""

import pytest
import torch
from torch import Tensor

from limbeck.objectives import Objective, SoftKD, StudentOut, Targets
from limbeck.select import Badge, Selector
from limbeck.select.base import surely
from limbeck.students import Student
from limbeck.testing import ObjectiveSuite, SelectorSuite
from tests.conformance.test_students import make, rows_of


class Centred(Objective):
    """Wrong on purpose: a row's cost depends on its neighbours, half precision stays, and so on."""

    name = "centred"

    def fit(self, answers, evidence):
        return self

    def targets(self, answers):
        return Targets({"teacher_probs": answers.probs})

    def class_log_probs(self, out: StudentOut) -> Tensor:
        return (2 * out.outputs).log_softmax(1)

    def loss(self, out: StudentOut, targets: Targets | None, labels: Tensor | None) -> Tensor:
        if targets is None:
            return self.label_loss(out, labels)
        return ((out.outputs - out.outputs.mean(0)) ** 2).sum(1)


def suite(kind, made):
    """A suite of this kind for what a constructor makes."""
    return type("Suite", (kind,), {"make": lambda _: made()})()


@pytest.mark.parametrize(
    "test",
    [
        ObjectiveSuite.test_a_row_of_a_batch_costs_what_it_costs_alone,
        ObjectiveSuite.test_half_precision_outputs_give_a_float32_loss,
        ObjectiveSuite.test_it_says_unfitted_what_a_saved_student_will_say,
    ],
)
def test_a_loss_that_breaks_the_rules_fails(test):
    test(suite(ObjectiveSuite, SoftKD))
    with pytest.raises(AssertionError):
        test(suite(ObjectiveSuite, Centred))


def test_a_student_that_looks_at_its_neighbours_fails():
    from limbeck.testing import StudentSuite

    class Suite(StudentSuite):
        def make(self, seed: int = 0) -> Student:
            student = make("tabular", seed)
            embed = student.module.embed
            student.module.embed = lambda inputs: embed(inputs) - embed(inputs).mean(0)
            return student

        def rows(self):
            return rows_of("tabular")

    with pytest.raises(AssertionError):
        Suite().test_a_batch_of_one_gives_what_a_batch_of_all_gives()


class First(Selector):
    """Wrong on purpose: where a row lies decides, and whatever its numbers are is welcome."""

    name = "first"
    needs = frozenset({"probs", "embeddings"})

    def select(self, candidates, k, generator):
        return surely(candidates, torch.arange(min(k, len(candidates.rows))))


@pytest.mark.parametrize(
    "test",
    [
        SelectorSuite.test_numbering_the_pool_anew_numbers_the_batch_anew,
        SelectorSuite.test_probabilities_that_are_no_numbers_are_refused,
        SelectorSuite.test_embeddings_that_are_no_numbers_are_refused,
    ],
)
def test_a_rule_that_goes_by_the_place_of_a_row_fails(test):
    test(suite(SelectorSuite, Badge))
    with pytest.raises(AssertionError):
        test(suite(SelectorSuite, First))
