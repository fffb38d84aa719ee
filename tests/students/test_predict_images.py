"""Predictions for images: of a folder by file, of columns by row, a bad image by name."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from limbeck.data import Schema
from limbeck.errors import DataError
from limbeck.students.predict import predict_file
from tests.data.conftest import write
from tests.data.pictures import class_folder, flat_folder, png


class Odd:
    """Names a picture by the parity of its bytes, so that mixed-up rows show."""

    def __init__(self, column: str) -> None:
        schema = Schema((), (), (), "label", ("even", "odd"), (column,))
        self.student = SimpleNamespace(schema=schema)
        self.classes = schema.classes
        self.column = column

    def probabilities(self, rows: pa.RecordBatch) -> NDArray[np.float32]:
        assert rows.schema.names == [self.column]
        return np.stack([self.truth(data) for data in rows.column(0).to_pylist()])

    @staticmethod
    def truth(data: bytes) -> NDArray[np.float32]:
        return np.eye(2, dtype=np.float32)[sum(data) % 2]

    def decide(self, probs: NDArray[np.float32]) -> NDArray[np.int64]:
        return probs.argmax(axis=1)

    def unsure(self, probs: NDArray[np.float32]) -> NDArray[np.bool_]:
        return np.zeros(len(probs), bool)


@pytest.mark.parametrize("by_class", [False, True])
@pytest.mark.parametrize("column", ["image", "x"])
def test_a_folder_is_predicted_file_by_file(tmp_path, by_class, column):
    folder = (class_folder if by_class else flat_folder)(tmp_path / "photos")
    found = pa.Table.from_batches(predict_file(Odd(column), folder)).to_pylist()
    files = sorted(folder.rglob("*.png"))
    assert [row["image"] for row in found] == [str(file) for file in files]
    want = [Odd.truth(file.read_bytes())[1] for file in files]
    assert [row["prob_odd"] for row in found] == want
    assert set(want) == {0, 1}


def test_a_file_with_paths_is_predicted_row_by_row(tmp_path):
    folder = flat_folder(tmp_path / "photos")
    files = sorted(folder.iterdir())
    path = write(tmp_path / "rows.csv", {"x": [f"photos/{file.name}" for file in files]})
    found = pa.Table.from_batches(predict_file(Odd("x"), path)).to_pylist()
    assert [row["prob_odd"] for row in found] == [Odd.truth(f.read_bytes())[1] for f in files]
    assert "image" not in found[0]


def test_an_image_that_cannot_be_read_is_refused_by_name(tmp_path):
    folder = flat_folder(tmp_path / "photos")
    (folder / "005.png").write_bytes(b"junk")
    with pytest.raises(DataError, match=r"005\.png: it has no pixels.*repair the image or leave"):
        list(predict_file(Odd("x"), folder))
    path = write(tmp_path / "rows.parquet", {"x": [png(1), None]})
    with pytest.raises(DataError, match="row 1 has no image; repair"):
        list(predict_file(Odd("x"), path))


def test_a_folder_lacks_the_other_columns_of_a_student_that_reads_more(tmp_path):
    student = Odd("image")
    student.student.schema = Schema(("caption",), (), (), "label", ("a", "b"), ("image",))
    with pytest.raises(DataError, match=r"has no column 'caption'.*its columns are \['image'\]"):
        list(predict_file(student, flat_folder(tmp_path / "photos")))
