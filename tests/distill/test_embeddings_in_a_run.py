"""Objectives that read embeddings: what a run gives them."""

import itertools

import numpy as np
import pytest

from limbeck.distill.config import load_config
from limbeck.distill.run import distill
from limbeck.teachers import StudentTeacher
from tests.distill import material

OBJECTIVE = """
from pathlib import Path

import numpy as np

from limbeck.objectives import Objective, Targets

SEEN = Path(__file__).with_suffix(".npz")


class Reads(Objective):
    '''Writes down the last layer that it is given, and learns nothing.'''

    name = "reads"
    needs_embeddings = True

    def fit(self, answers, evidence):
        head = evidence.head
        none = np.zeros(0)
        np.savez(SEEN, weight=none if head is None else head.weight.numpy(),
                 bias=none if head is None else head.bias.numpy(),
                 rows=sum(len(part) for part in answers),
                 width=np.array([part.embeddings.shape[1] for part in answers]))
        return self

    def targets(self, answers):
        return Targets({"embedding": answers.embeddings})

    def loss(self, out, targets, labels):
        return self.label_loss(out, labels) if targets is None else 0 * out.outputs.sum(dim=1)
"""
_numbers = itertools.count()


def task(folder, teacher, *, more=""):
    """A run with an arm that reads embeddings; `teacher` is the table of that name."""
    made = material.make(folder, more=more)
    module = f"reads_{next(_numbers)}"
    (folder / f"{module}.py").write_text(OBJECTIVE)
    text = made.run_file.read_text().replace('"labels", "slam"', f'"labels", "{module}:Reads"')
    old = text[text.index("[teacher]") : text.index("[student.settings]")]
    made.run_file.write_text(text.replace(old, f"[teacher]\n{teacher}\n\n"))
    return made, folder / f"{module}.npz"


@pytest.mark.slow
@pytest.mark.parametrize("more", ["", "\n[buy]\nrule = 'uniform'\nrounds = 2\n"])
def test_it_is_given_the_layer_behind_the_embeddings_of_a_trained_teacher(tmp_path, more):
    made, seen = task(tmp_path, 'kind = "fit"', more=more)
    distill(load_config(made.run_file))
    weight, bias = StudentTeacher(tmp_path / "run/teacher").head(None)
    found = np.load(seen)
    np.testing.assert_array_equal(found["weight"], weight.numpy())
    np.testing.assert_array_equal(found["bias"], bias.numpy())
    assert (found["width"] == weight.shape[1]).all()
