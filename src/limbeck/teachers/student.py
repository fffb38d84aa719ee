"""A saved student of ours as a teacher: distil once more, into something smaller."""

from pathlib import Path

import pyarrow as pa
import torch

from limbeck.data.tables import as_batch
from limbeck.storage import sha256
from limbeck.students.folder import CONFIG, WEIGHTS, load
from limbeck.teachers.base import Head
from limbeck.teachers.head import weights_of
from limbeck.teachers.local import LocalTeacher, Said, fingerprint_of

_BATCH = 1024


class StudentTeacher(LocalTeacher):
    """A student folder as a teacher.

    Its probabilities are the calibrated ones, softmax(logits / T) with the T that the student was
    saved with: for everything downstream that is temperature 1. The embedding is the input of
    the student's head.

    Args:
        folder: A folder that `limbeck.students` saved.
        device: Where it computes.

    Raises:
        StudentError: the folder is incomplete, or changed since it was written.
    """

    embeds = True

    def __init__(self, folder: Path, *, device: str = "cpu") -> None:
        self._predictor = load(folder)
        self._module = self._predictor.student.module.to(device).eval()
        self._device = torch.device(device)
        self.name = f"teacher {folder}"
        schema = self._predictor.student.schema
        self.classes, self.columns = schema.classes, schema.inputs
        self.fingerprint = fingerprint_of(
            "student", sha256(folder / WEIGHTS), sha256(folder / CONFIG)
        )

    def say(self, rows: pa.RecordBatch) -> Said:
        """Run the student over rows."""
        student = self._predictor.student
        batch = as_batch(rows, student.schema)
        probs = [torch.zeros(0, len(self.classes))]
        embeddings = [torch.zeros(0, self._module.embedding_dim)]
        for start in range(0, batch.num_rows, _BATCH):
            encoded = student.encoder.encode(batch.slice(start, _BATCH))
            inputs = {k: v.to(self._device) for k, v in student.encoder.collate(encoded).items()}
            with torch.inference_mode():
                out = self._module(inputs)
                logits = student.class_logits(out.outputs) / self._predictor.temperature
                probs.append(torch.softmax(logits, dim=-1).cpu())
                embeddings.append(out.embedding.float().cpu())
        return Said(torch.cat(probs), torch.cat(embeddings))

    def head(self, rows: pa.RecordBatch) -> Head:
        """The student's head over its temperature; `rows` are not looked at.

        A head of several outputs a class is divided by the temperature of its sums instead: these
        are the answers of a student that was calibrated at the same temperature.
        """
        class_map, divisor = self._predictor.student.class_map, self._predictor.temperature
        if class_map is not None and not class_map.is_plain:
            divisor = class_map.temperature
        return weights_of(self._module.head, divisor=divisor)
