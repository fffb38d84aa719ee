"""Run a student over a file of any size: rows in and predictions out, a batch at a time."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from limbeck.data import Source, find_source, read_batches
from limbeck.data.columns import normalise
from limbeck.data.folders import BY_CLASS, FLAT, IMAGE
from limbeck.data.looks import Seen, looked_at
from limbeck.data.readers import input_kinds
from limbeck.data.schema import Schema
from limbeck.errors import DataError
from limbeck.students.folder import Predictor


def predict_file(predictor: Predictor, path: Path) -> Iterator[pa.RecordBatch]:
    """Predict every row of a file.

    Args:
        predictor: A loaded student.
        path: File, folder of parts, folder of images, or pattern.

    Yields:
        Columns `prediction`, `confidence` (its probability), `defer` (better ask the teacher), and
        `prob_<class>` for every class, in the order of the file's rows. Of a folder of images the
        first column, `image`, is the file.

    Raises:
        DataError: the file or an image cannot be read, or a column is missing.
    """
    source = find_source(path)
    done = 0
    for rows in _rows(source, predictor.student.schema):
        probs = predictor.probabilities(rows)
        named = predictor.decide(probs)
        columns = {}
        if source.format in (FLAT, BY_CLASS):
            files = source.files[done : done + len(probs)]
            columns[IMAGE] = pa.array([str(file) for file in files], pa.string())
            done += len(files)
        columns |= {
            "prediction": pa.array([predictor.classes[i] for i in named], pa.string()),
            "confidence": pa.array(probs[np.arange(len(named)), named].astype(np.float64)),
            "defer": pa.array(predictor.unsure(probs)),
        }
        for i, name in enumerate(predictor.classes):
            columns[f"prob_{name}"] = pa.array(probs[:, i].astype(np.float64))
        yield pa.RecordBatch.from_pydict(columns)


def _rows(source: Source, schema: Schema) -> Iterator[pa.RecordBatch]:
    """The student's inputs; a folder of images serves the image column, whatever its name."""
    where = str(source.path)
    kinds = input_kinds(schema)
    folder = source.format in (FLAT, BY_CLASS) and schema.inputs == schema.image[:1]
    if folder:
        kinds = {IMAGE: "image"}
    names = (IMAGE,) if folder else schema.image
    for looked in looked_at(read_batches(source, kinds), names, Seen(), where=where):
        for fault in looked.faults.values():
            raise DataError(f"{fault}; repair the image or leave it out.")
        batch = looked.batch.rename_columns(list(schema.inputs)) if folder else looked.batch
        yield normalise(batch, schema, where=where)
