"""An encoder that was fitted before is read back, and only where nothing has changed."""

import io
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from limbeck.data.schema import Schema
from limbeck.students import (
    ImageCnnConfig,
    ImageCnnEncoder,
    Keep,
    TextTransformerConfig,
    TextTransformerEncoder,
    build,
)

TEXT = Schema(text=("t",), numeric=(), category=(), label=None, classes=("no", "yes"))
IMAGE = Schema((), (), (), label=None, classes=("no", "yes"), image=("i",))
SMALL = TextTransformerConfig(vocab=300, dim=8, heads=2)


def texts():
    words = np.random.default_rng(0).integers(0, 30, (60, 5)).astype(str)
    return pa.record_batch({"t": pa.array([" ".join(row) for row in words], pa.large_string())})


def images():
    files = []
    for side in (9, 12, 17):
        buffer = io.BytesIO()
        grey = np.random.default_rng(side).integers(0, 256, (side, side), dtype=np.uint8)
        Image.fromarray(grey).save(buffer, "PNG")
        files.append(buffer.getvalue())
    return pa.record_batch({"i": pa.array(files, pa.large_binary())})


CASES = [
    (TextTransformerEncoder, TEXT, SMALL, texts()),
    (ImageCnnEncoder, IMAGE, ImageCnnConfig(), images()),
]


@pytest.mark.parametrize(("kind", "schema", "settings", "rows"), CASES)
def test_what_is_read_back_is_what_was_fitted_and_no_row_is_read(
    kind, schema, settings, rows, tmp_path
):
    keep = Keep(tmp_path, "rows")
    first = keep.fitted(kind, [rows], schema, settings)

    def refuse():
        raise AssertionError("the rows were read again")
        yield

    again = keep.fitted(kind, refuse(), schema, settings)
    assert again.to_config() == first.to_config() == kind.fit([rows], schema, settings).to_config()
    assert again.files() == first.files()
    assert np.array_equal(again.encode(rows).values, first.encode(rows).values)


@pytest.mark.parametrize("change", ["source", "settings", "schema", "file"])
def test_other_rows_other_settings_or_a_spoilt_file_fit_anew(change, tmp_path):
    kind, schema, settings, rows = CASES[0]
    Keep(tmp_path, "rows").fitted(kind, [rows], schema, settings)
    source = "others" if change == "source" else "rows"
    if change == "settings":
        settings = replace(settings, vocab=310)
    if change == "schema":
        schema = replace(schema, classes=("a", "b"))
    if change == "file":
        (file,) = tmp_path.iterdir()
        file.write_text(file.read_text()[:-100])
    read = []

    def watched():
        read.append(1)
        yield rows

    Keep(tmp_path, source).fitted(kind, watched(), schema, settings)
    assert read == [1]


def test_a_student_with_a_kept_encoder_has_the_same_weights(tmp_path):
    def weights(keep):
        made = build(
            "text_transformer",
            SMALL,
            TEXT,
            [texts()],
            2,
            torch.Generator().manual_seed(0),
            keep=keep,
        )
        return made.module.state_dict()

    plain, *kept = (weights(keep) for keep in (None, Keep(tmp_path, "r"), Keep(tmp_path, "r")))
    for other in kept:
        assert all(torch.equal(tensor, other[name]) for name, tensor in plain.items())
