"""A student taught by LELP knows the components that plain distillation cannot show it."""

import numpy as np
import pytest
import torch

from limbeck.answers import Answers
from limbeck.objectives import Evidence, Lelp, Objective, SoftKD, StudentOut, TeacherHead
from tests.objectives.test_projections import centroid_accuracy, planted


def taught(objective: Objective, x, answers) -> torch.Tensor:
    """Outputs of a linear student after training on the answers."""
    torch.manual_seed(0)
    student = torch.nn.Linear(x.shape[1], objective.width(2))
    optimizer = torch.optim.Adam(student.parameters(), lr=0.05)
    targets = objective.targets(answers)
    for _ in range(200):
        optimizer.zero_grad()
        objective.loss(StudentOut(student(x), x), targets, None).mean().backward()
        optimizer.step()
    return student(x).detach()


@pytest.mark.parametrize("trust", [False, True])
def test_a_student_learns_the_components_from_lelp_only_and_the_classes_as_well(trust):
    h, y, component, weight = planted()
    x = h.float()
    head = TeacherHead(weight.float(), torch.zeros(2))
    answers = Answers(np.zeros((len(x), 16), np.uint8), torch.softmax(x @ head.weight.T, 1), x)
    known = Evidence(answers.probs, y, lambda p: torch.full((len(p),), 0.98), 2, head=head)
    lelp = Lelp(subclasses=8, trust=trust).fit([answers], known)
    wide = taught(lelp, x, answers)
    plain = taught(SoftKD(temperature=2.0), x, answers)
    for c in range(2):
        own = y == c
        split = torch.log_softmax(wide.view(-1, 2, 8)[own, c], 1)
        assert centroid_accuracy(split, component[own], 4) > 0.95
        said = torch.log_softmax(plain[own], 1)
        assert centroid_accuracy(said, component[own], 4) < 0.35  # chance is 0.25
    said = lelp.class_log_probs(StudentOut(wide, x)).argmax(1)
    assert float((said == y).double().mean()) > 0.99
