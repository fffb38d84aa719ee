"""What every student must do, whoever wrote it."""

import tempfile
from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from safetensors.torch import save as to_bytes
from torch import Tensor

from limbeck.students import Encoder, MemoryStore, Ragged, Student, load, pad_rows, save


class StudentSuite(ABC):
    """Tests of one student; derive from it and say how it is made and what it reads."""

    @abstractmethod
    def make(self, seed: int = 0) -> Student:
        """A new student with the initial weights of a seed."""

    @abstractmethod
    def rows(self) -> pa.RecordBatch:
        """A few rows of its input columns, as different from each other as real ones are."""

    def outputs(self, student: Student, rows: pa.RecordBatch) -> Tensor:
        """Outputs of the head in eval mode, shape (n, width)."""
        student.module.eval()
        with torch.no_grad():
            out = student.module(student.encoder.collate(student.encoder.encode(rows)))
        assert out.outputs.shape == (rows.num_rows, student.module.head.out_features)
        assert out.embedding.shape == (rows.num_rows, student.module.embedding_dim)
        outputs: Tensor = out.outputs
        return outputs

    def test_a_seed_gives_the_same_bytes_and_leaves_the_global_seed_alone(self) -> None:
        before = torch.random.get_rng_state()
        first, again, other = (to_bytes(self.make(s).module.state_dict()) for s in (3, 3, 4))
        assert first == again
        assert first != other
        assert torch.equal(torch.random.get_rng_state(), before)

    def test_a_row_is_encoded_without_looking_at_its_neighbours(self) -> None:
        student, rows = self.make(), self.rows()
        together = student.encoder.encode(rows)
        assert together.values.dtype == student.encoder.dtype
        alone = [_split(student.encoder.encode(rows.slice(i, 1)))[0] for i in range(rows.num_rows)]
        assert _split(together) == alone

    def test_a_batch_of_one_gives_what_a_batch_of_all_gives(self) -> None:
        student, rows = self.make(), self.rows()
        one_by_one = [self.outputs(student, rows.slice(i, 1)) for i in range(rows.num_rows)]
        torch.testing.assert_close(torch.cat(one_by_one), self.outputs(student, rows))

    def test_no_rows_give_no_outputs(self) -> None:
        assert len(self.outputs(self.make(), self.rows().slice(0, 0))) == 0

    def test_inputs_are_unchanged(self) -> None:
        student, rows = self.make(), self.rows()
        encoded = student.encoder.encode(rows)
        values, lengths = encoded.values.copy(), encoded.lengths.copy()
        inputs = student.encoder.collate(encoded)
        kept = {key: tensor.clone() for key, tensor in inputs.items()}
        _backward(student.module(inputs).outputs.sum())
        assert all(torch.equal(inputs[key], kept[key]) for key in kept)
        np.testing.assert_array_equal(encoded.values, values)
        np.testing.assert_array_equal(encoded.lengths, lengths)

    def test_read_only_rows_of_a_store_collate_without_a_warning(self) -> None:
        student, rows = self.make(), self.rows()
        part = MemoryStore.build(student.encoder, [rows]).take(np.arange(rows.num_rows))
        frozen = np.frombuffer(part.values.tobytes(), dtype=part.values.dtype)
        inputs = student.encoder.collate(Ragged(frozen, part.lengths))
        expected = self.outputs(student, rows)
        torch.testing.assert_close(student.module(inputs).outputs.detach(), expected)

    def test_every_parameter_learns(self) -> None:
        student, rows = self.make(), self.rows()
        student.module.eval()
        inputs = student.encoder.collate(student.encoder.encode(rows))
        _backward(student.module(inputs).outputs[:, 0].sum())
        for label, parameter in student.module.named_parameters():
            assert parameter.grad is not None, label
            assert bool(parameter.grad.any()), label

    def test_padded_rows_embed_as_ragged_ones_do(self) -> None:
        student, rows = self.make(), self.rows()
        encoded = student.encoder.encode(rows)
        student.module.eval()
        ragged = student.module.embed(student.encoder.collate(encoded))
        padded = student.module.embed_padded(torch.from_numpy(pad_rows(encoded)))
        torch.testing.assert_close(padded, ragged)

    def test_an_encoder_comes_back_from_its_config_and_files(self) -> None:
        encoder: Encoder = self.make().encoder
        again = type(encoder).from_files(encoder.to_config(), encoder.files())
        assert again.files() == encoder.files()
        assert again.to_config() == encoder.to_config()
        assert _split(again.encode(self.rows())) == _split(encoder.encode(self.rows()))

    def test_a_saved_student_predicts_the_same(self) -> None:
        student, rows = self.make(), self.rows()
        with tempfile.TemporaryDirectory() as folder:
            save(student, Path(folder))
            expected = torch.softmax(self.outputs(student, rows), dim=1).numpy()
            np.testing.assert_array_equal(load(Path(folder)).probabilities(rows), expected)

    def test_a_new_head_has_its_width_and_leaves_the_rest(self) -> None:
        student = self.make()
        head = {id(p) for p in student.module.head.parameters()}
        state = student.module.state_dict(keep_vars=True)
        body = {k: v.detach().clone() for k, v in state.items() if id(v) not in head}
        assert len(body) == len(state) - 2
        student.module.replace_head(7, torch.Generator().manual_seed(1))
        assert student.module.head.out_features == 7
        assert all(torch.equal(v, student.module.state_dict()[k]) for k, v in body.items())


def _split(rows: Ragged) -> list[list[float]]:
    return [part.tolist() for part in np.split(rows.values, np.cumsum(rows.lengths)[:-1])]


def _backward(value: Tensor) -> None:
    value.backward()  # type: ignore[no-untyped-call]  # torch's own
