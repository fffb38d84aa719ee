"""What every objective must do, whoever wrote it."""

from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor

from limbeck.answers import Answers
from limbeck.errors import ConfigError
from limbeck.objectives import (
    Evidence,
    Objective,
    Snapshot,
    StudentOut,
    Targets,
    TeacherHead,
)
from limbeck.trust import NeighbourTrust

_ROWS = 7


class ObjectiveSuite(ABC):
    """Tests of one objective; derive from it and say how it is made.

    It is fitted to made-up answers of `classes` classes with embeddings, a spread, trust and
    neighbours, and given made-up students.
    """

    classes = 4
    """C of the made-up task."""
    embedding_dim = 24
    """Width of the teacher's and of the student's embedding."""
    teacher_subclasses = 1
    """Outputs of the teacher's last layer for each class."""

    @abstractmethod
    def make(self) -> Objective:
        """A new objective that has not been fitted; equal ones each time."""

    def answers(self, rows: int, seed: int = 0) -> Answers:
        """What a made-up teacher says, with an embedding and a spread."""
        g = torch.Generator().manual_seed(seed)
        head = self.head()
        embeddings = torch.randn(rows, self.embedding_dim, generator=g)
        outputs = torch.softmax(embeddings @ head.weight.T + head.bias, dim=1)
        probs = outputs.view(rows, self.classes, self.teacher_subclasses).sum(dim=2)
        ids = np.arange(rows * 16, dtype=np.uint8).reshape(rows, 16)
        return Answers(ids, probs, embeddings, 0.05 * torch.rand(rows, self.classes, generator=g))

    def fitted(self) -> Objective:
        """The objective, fitted."""
        told = self.answers(40, seed=9)
        labels = told.probs.argmax(dim=1)
        known = Evidence(
            told.probs,
            labels,
            lambda p: p.max(dim=1).values.clamp(0.5, 1.0),
            min(3, self.classes),
            lambda logs: NeighbourTrust.fit(told.probs, logs, labels),
            self.head(),
        )
        fitted = self.make().fit([self.answers(16), self.answers(16, seed=1)], known)
        return fitted.attach(self.embedding_dim, torch.Generator().manual_seed(3))

    def head(self) -> TeacherHead:
        """The made-up teacher's last layer; outputs of one class are neighbours."""
        g = torch.Generator().manual_seed(11)
        count = self.classes * self.teacher_subclasses
        weight = torch.randn(count, self.embedding_dim, generator=g) / self.embedding_dim**0.5
        return TeacherHead(2 * weight, 0.3 * torch.randn(count, generator=g))

    def targets(self, objective: Objective, rows: int) -> Targets:
        """What the objective wants of made-up rows, with their places in the pool."""
        found = objective.targets(self.answers(rows))
        if not objective.needs_rows:
            return found
        return Targets({**found.tensors, "row": torch.arange(rows)})

    def student(
        self, objective: Objective, rows: int, dtype: torch.dtype = torch.float32
    ) -> StudentOut:
        """What a made-up student gives for rows; both of its tensors want a gradient."""
        g = torch.Generator().manual_seed(5)
        width = objective.width(self.classes)
        outputs = torch.randn(rows, width, dtype=torch.float64, generator=g).to(dtype)
        embedding = torch.randn(rows, self.embedding_dim, dtype=torch.float64, generator=g)
        return StudentOut(outputs.requires_grad_(), embedding.to(dtype).requires_grad_())

    def losses(self, objective: Objective, out: StudentOut) -> list[Tensor]:
        """The loss of labelled rows and, where it learns from answers, of pool rows."""
        objective.begin_step(0.5)
        rows = len(out.outputs)
        losses = [objective.loss(out, None, torch.arange(rows) % self.classes)]
        if objective.needs_answers:
            losses.append(objective.loss(out, self.targets(objective, rows), None))
        return losses

    def test_there_is_one_finite_loss_a_row_with_finite_gradients(self) -> None:
        objective = self.fitted()
        for rows in (0, 1, _ROWS):
            out = self.student(objective, rows)
            for loss in self.losses(objective, out):
                assert loss.shape == (rows,)
                assert loss.isfinite().all()
                loss.sum().backward()  # type: ignore[no-untyped-call]  # torch's own
                grads = [x.grad for x in (out.outputs, out.embedding) if x.grad is not None]
                assert grads
                assert all(grad.isfinite().all() for grad in grads)

    def test_the_same_inputs_give_the_same_loss_and_are_left_unchanged(self) -> None:
        objective = self.fitted()
        out, told = self.student(objective, _ROWS), self.answers(_ROWS)
        before = [x.detach().clone() for x in (out.outputs, out.embedding, told.probs)]
        losses = [self.losses(objective, out) for _ in range(2)]
        if objective.needs_answers:
            objective.targets(told)
        for first, second in zip(*losses, strict=True):
            assert torch.equal(first, second)
        for old, new in zip(before, (out.outputs, out.embedding, told.probs), strict=True):
            assert torch.equal(old, new)

    def test_a_row_of_a_batch_costs_what_it_costs_alone(self) -> None:
        """Of a relational loss that holds for labelled rows only, if it learns from answers."""
        objective = self.fitted()
        out, told = self.student(objective, _ROWS), self.answers(_ROWS)
        together = self.losses(objective, out)
        assert told.embeddings is not None
        assert told.spread is not None
        for i in range(_ROWS):
            part = slice(i, i + 1)
            row = StudentOut(out.outputs[part], out.embedding[part])
            if objective.needs_answers or not objective.relational:
                one = objective.loss(row, None, torch.tensor([i % self.classes]))
                torch.testing.assert_close(one[0], together[0][i])
            if objective.needs_answers and not objective.relational:
                alone = Answers(
                    told.ids[part], told.probs[part], told.embeddings[part], told.spread[part]
                )
                targets = objective.targets(alone)
                if objective.needs_rows:
                    targets = Targets({**targets.tensors, "row": torch.tensor([i])})
                one = objective.loss(row, targets, None)
                torch.testing.assert_close(one[0], together[1][i])

    def test_the_order_of_the_rows_changes_no_mean(self) -> None:
        objective = self.fitted()
        out, order = (
            self.student(objective, _ROWS),
            torch.randperm(_ROWS, generator=torch.Generator().manual_seed(1)),
        )
        mixed = StudentOut(out.outputs[order], out.embedding[order])
        if objective.needs_answers:
            targets = self.targets(objective, _ROWS)
            mean = objective.loss(out, targets, None).mean()
            turned = Targets({name: t[order] for name, t in targets.tensors.items()})
            torch.testing.assert_close(objective.loss(mixed, turned, None).mean(), mean)

    def test_float32_is_close_to_float64(self) -> None:
        objective = self.fitted()
        pairs = zip(
            self.losses(objective, self.student(objective, _ROWS, torch.float32)),
            self.losses(objective, self.student(objective, _ROWS, torch.float64)),
            strict=True,
        )
        for single, double in pairs:
            torch.testing.assert_close(single, double.float(), atol=1e-5, rtol=1e-5)

    def test_half_precision_outputs_give_a_float32_loss(self) -> None:
        objective = self.fitted()
        for loss in self.losses(objective, self.student(objective, _ROWS, torch.bfloat16)):
            assert loss.dtype == torch.float32

    def test_the_gpu_agrees_with_the_cpu(self) -> None:
        """Passes where there is no GPU."""
        if not torch.cuda.is_available():
            return
        objective, device = self.fitted(), torch.device("cuda")
        out, here = self.student(objective, _ROWS), torch.arange(_ROWS) % self.classes
        told = [None, self.targets(objective, _ROWS)] if objective.needs_answers else [None]
        wanted = [objective.loss(out, t, here if t is None else None) for t in told]
        for parameter in objective.parameters():  # as a loop does before it trains them
            parameter.data = parameter.data.to(device)
        moved = StudentOut(out.outputs.to(device), out.embedding.to(device))
        for targets, on_cpu in zip(told, wanted, strict=True):
            if targets is None:
                found = objective.loss(moved, None, here.to(device))
            else:
                found = objective.loss(moved, targets.to(device), None)
            torch.testing.assert_close(found.cpu(), on_cpu)

    def test_targets_are_named_tensors_with_a_row_each(self) -> None:
        targets = self.fitted().targets(self.answers(_ROWS))
        assert isinstance(targets, Targets)
        assert all(len(tensor) == _ROWS for tensor in targets.tensors.values())
        assert not any(tensor.requires_grad for tensor in targets.tensors.values())

    def test_the_head_is_at_least_as_wide_as_the_classes(self) -> None:
        assert self.fitted().width(self.classes) >= self.classes

    def test_class_probabilities_are_normalised(self) -> None:
        objective = self.fitted()
        probs = objective.class_log_probs(self.student(objective, _ROWS)).exp()
        assert probs.shape == (_ROWS, self.classes)
        torch.testing.assert_close(probs.sum(dim=1), torch.ones(_ROWS))

    def test_a_refitted_objective_with_the_saved_state_gives_the_same_loss(self) -> None:
        first, second = self.fitted(), self.fitted()
        second.load_state_dict(first.state_dict())
        out = self.student(first, _ROWS)
        for a, b in zip(self.losses(first, out), self.losses(second, out), strict=True):
            assert torch.equal(a, b)

    def test_what_a_refresh_has_learnt_is_the_same_each_time_and_lies_in_the_state(self) -> None:
        """Passes for an objective that learns nothing from the student."""
        if type(self.make()).refresh is Objective.refresh:
            return
        first, second, late = self._refreshed(), self._refreshed(), self.fitted()
        assert first.refresh_every is not None
        late.load_state_dict(first.state_dict())
        out = self.student(first, _ROWS)
        told = first.targets(self.answers(_ROWS)).tensors
        targets = Targets({**told, "row": torch.arange(_ROWS)})
        losses = [objective.loss(out, targets, None) for objective in (first, second, late)]
        assert torch.equal(losses[0], losses[1])
        assert torch.equal(losses[0], losses[2])

    def _refreshed(self) -> Objective:
        objective, pool = self.fitted(), self.answers(_ROWS)
        g = torch.Generator().manual_seed(2)
        logs = torch.log_softmax(torch.randn(40, self.classes, generator=g), dim=1)
        objective.refresh(Snapshot(logs, [(pool, torch.log_softmax(pool.probs, dim=1))]))
        return objective

    def test_it_says_unfitted_what_a_saved_student_will_say(self) -> None:
        """A student folder keeps the class map alone, and nothing of the objective."""
        objective = self.make()
        class_map, out = objective.class_map(self.classes), self.student(objective, _ROWS)
        assert class_map.width == out.outputs.shape[1]
        torch.testing.assert_close(
            objective.class_log_probs(out), class_map.log_probs(out.outputs), atol=1e-5, rtol=1e-5
        )

    def test_neither_targets_nor_labels_is_refused(self) -> None:
        objective, told = self.fitted(), ""
        try:
            objective.loss(self.student(objective, 2), None, None)
        except ConfigError as error:
            told = str(error)
        assert "neither targets nor labels" in told
