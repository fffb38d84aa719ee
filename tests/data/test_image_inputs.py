"""Images from folders, columns and arrays into splits; what cannot be used is found and named."""

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from limbeck.data import DataConfig, Dataset, Schema, as_batch, content_ids, prepare, workers
from limbeck.data.cells import MOST_FILE_BYTES
from limbeck.data.images import netpbm
from limbeck.data.pieces import PIECE_BYTES, pieces
from limbeck.data.readers import read_batches
from limbeck.data.sources import find_source
from limbeck.data.writer import row_writer
from limbeck.distill.card import _row
from limbeck.distill.row_texts import _short
from limbeck.errors import ConfigError, DataError
from limbeck.teachers.table import TableTeacher

from .conftest import write
from .pictures import class_folder, flat_folder, pixels, png, png_head

SCHEMA = Schema((), (), (), "label", ("cat", "dog"), ("image",))


def images(data: Dataset) -> list[bytes]:
    return data.table.column("image").to_pylist()


def stage(tmp_path: Path, labelled: Path, pool: Path | None = None, **more: object):
    return prepare(DataConfig(labelled=labelled, pool=pool, **more), tmp_path / "run", 0)


# --- folders


def test_a_class_folder_and_a_flat_pool_become_splits_of_bytes(tmp_path):
    splits = stage(tmp_path, class_folder(tmp_path / "pets"), flat_folder(tmp_path / "more"))
    assert splits.schema == SCHEMA
    assert splits.labelled.table.schema.field("image").type == pa.large_binary()
    got = {
        (data, splits.schema.classes[c])
        for part in (splits.labelled, splits.validation, splits.test)
        for data, c in zip(images(part), part.labels, strict=True)
    }
    assert got == {(png(1000 * c + i), n) for c, n in enumerate(("cat", "dog")) for i in range(10)}
    assert images(splits.pool) == [png(90_000 + i) for i in range(10)]
    assert "'image' is taken as image: paths of image files." in splits.notes
    assert "images in 'image' are 6 x 4 pixels, mode RGB." in splits.notes
    batch = splits.pool.table.to_batches()[0]
    assert (splits.pool.content_ids == content_ids(batch, splits.schema)).all()


def test_a_pool_may_be_a_class_folder_whose_labels_are_not_read(tmp_path):
    pool = class_folder(tmp_path / "more", 4, classes=("x", "y", "z"))
    splits = stage(tmp_path, class_folder(tmp_path / "pets"), pool)
    assert splits.schema.classes == ("cat", "dog")
    assert splits.pool.labels is None
    assert splits.found["pool repeats labelled"] > 0
    assert len(splits.pool) == 4  # those of z; the others are the labelled pictures once more


def test_other_files_and_hidden_ones_beside_images_are_ignored(tmp_path):
    folder = class_folder(tmp_path / "pets")
    (folder / "README.md").write_text("pets")
    (folder / ".git").mkdir()
    (folder / "cat" / ".DS_Store").write_bytes(b"x")
    (folder / "cat" / "notes.txt").write_text("x")
    assert len(find_source(folder).files) == 20


def test_folders_in_the_wrong_form_are_refused(tmp_path):
    one = class_folder(tmp_path / "one", classes=("cat",))
    with pytest.raises(DataError, match=r"one holds one class only \('cat' in 10 rows\)"):
        stage(tmp_path, one)
    (one / "bird").mkdir()
    with pytest.raises(DataError, match=r"class folder .*bird holds no image.*remove the folder"):
        stage(tmp_path, one)
    (one / "bird").rmdir()
    (one / "loose.jpg").write_bytes(png(1))
    with pytest.raises(DataError, match=r"images of its own \(loose.jpg\) and folders.*\(cat\)"):
        stage(tmp_path, one)
    (one / "loose.jpg").unlink()
    (one / "cat" / "kittens").mkdir()
    (one / "cat" / "kittens" / "a.png").write_bytes(png(1))
    with pytest.raises(DataError, match=r"images below its class folders .*kittens"):
        stage(tmp_path, one)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no file that can be read, and no images"):
        stage(tmp_path, tmp_path / "empty")
    with pytest.raises(DataError, match=r"no column that is called like a label"):
        stage(tmp_path, flat_folder(tmp_path / "flat"))


# --- columns


def columns_of(tmp_path: Path, form: str) -> Path:
    """The same 20 rows, images as the form says."""
    folder = class_folder(tmp_path / "pets")
    files = sorted(folder.glob("*/*.png"))
    rows: dict[str, list[object]] = {"label": [file.parent.name for file in files]}
    data = [file.read_bytes() for file in files]
    if form == "struct":
        cells = [{"bytes": d, "path": f.name} for d, f in zip(data, files, strict=True)]
        return write(tmp_path / "rows.parquet", rows | {"image": cells})
    if form == "bytes":
        return write(tmp_path / "rows.parquet", rows | {"image": data})
    if form == "arrow":
        return write(tmp_path / "rows.arrow", rows | {"image": data})
    if form == "absolute":
        return write(tmp_path / "rows.csv", rows | {"image": [str(file) for file in files]})
    return write(
        tmp_path / f"rows.{form}",
        rows | {"image": [str(file.relative_to(tmp_path)) for file in files]},
    )


@pytest.mark.parametrize(
    "form", ["struct", "bytes", "arrow", "absolute", "csv", "jsonl", "parquet"]
)
def test_images_in_columns_are_those_of_the_folder(tmp_path, form):
    path = columns_of(tmp_path, form)
    ids = prepare(DataConfig(labelled=path), tmp_path / "a", 0).test.content_ids
    again = prepare(DataConfig(labelled=tmp_path / "pets"), tmp_path / "b", 0)
    assert (ids == again.test.content_ids).all()
    named = prepare(DataConfig(labelled=path, image=("image",)), tmp_path / "c", 0)
    assert (named.test.content_ids == ids).all()


def test_other_columns_beside_a_guessed_image_are_ignored_and_told(tmp_path):
    rows: dict[str, list[object]] = {
        "photo": [png(i) for i in range(40)],
        "caption": [f"a long caption of the picture {i}" for i in range(40)],
        "width": [float(i % 7) for i in range(40)],
        "mask": [png(i + 99) for i in range(40)],
        "thumb": [f"t{i}.jpg" for i in range(40)],
        "blob": [b"\0\1" for _ in range(40)],
        "label": ["a", "b"] * 20,
    }
    splits = stage(tmp_path, write(tmp_path / "rows.parquet", rows))
    assert splits.schema.inputs == splits.schema.image == ("photo",)
    told = {name: note for note in splits.notes for name in note.split("'")[1::2]}
    for name in ("caption", "width", "mask"):
        assert "ignored because 'photo' holds images" in told[name]
    assert "there is no" in told["thumb"]
    assert "no images are not read" in told["blob"]


def test_named_columns_of_images_and_text_are_read_together(tmp_path):
    rows: dict[str, list[object]] = {
        "photo": [png(i) for i in range(40)],
        "caption": ["" if i == 3 else f"picture {i}" for i in range(40)],
        "label": ["a", "b"] * 20,
    }
    path = write(tmp_path / "rows.parquet", rows)
    splits = stage(tmp_path, path, image=("photo",), text=("caption",))
    assert splits.schema.inputs == ("caption", "photo")
    with pytest.raises(ConfigError, match="named twice among text, numeric, category and image"):
        DataConfig(labelled=path, image=("photo",), text=("photo",))


def test_a_column_of_another_type_is_no_image(tmp_path):
    path = write(tmp_path / "a.parquet", {"image": [1, 2], "label": ["a", "b"]})
    with pytest.raises(DataError, match="image column 'image' holds int64, expected paths"):
        stage(tmp_path, path, image=("image",))


# --- arrays


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3)])
def test_arrays_of_pixels_become_images(tmp_path, shape):
    x = pixels(0, 40, *shape)
    np.savez_compressed(tmp_path / "a.npz", x=x, y=np.arange(40) % 2)
    np.savez(tmp_path / "pool.npz", x=np.asfortranarray(x[::-1] // 2))
    splits = stage(tmp_path, tmp_path / "a.npz", tmp_path / "pool.npz")
    assert splits.schema.image == ("x",)
    assert splits.schema.label == "y"
    assert splits.pool.table.column("x").to_pylist() == [netpbm(one) for one in x[::-1] // 2]
    assert splits.labelled.table.column("x")[0].as_py() in {netpbm(one) for one in x}


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (np.zeros((4, 5, 5), np.float32), r"'x' is float32 of shape \(4, 5, 5\)"),
        (np.zeros((4, 3, 5, 5), np.uint8), r"'x' is uint8 of shape \(4, 3, 5, 5\)"),
        (np.zeros((4, 5, 5, 4), np.uint8), r"shape \(4, 5, 5, 4\).*\(n, H, W, 3\)"),
        (np.zeros((4, 0, 5), np.uint8), r"shape \(4, 0, 5\)"),
        (np.zeros((4, 5, 5), np.int64), r"int64 .*astype\('uint8'\)"),
    ],
)
def test_arrays_of_another_type_or_shape_are_refused(tmp_path, x, said):
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(4) % 2)
    with pytest.raises(DataError, match=said):
        stage(tmp_path, tmp_path / "a.npz")


def test_images_of_an_archive_are_read_in_pieces(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros((20, 1000, 1000), np.uint8))
    batches = list(read_batches(find_source(tmp_path / "a.npz"), {"x": "image"}))
    assert sum(batch.num_rows for batch in batches) == 20
    assert max(batch.nbytes for batch in batches) <= 1.1 * PIECE_BYTES


def test_an_archive_that_is_cut_short_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", x=pixels(0, 40, 5, 7), y=np.arange(40) % 2)
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", parts["x.npy"][:-9])
        archive.writestr("y.npy", parts["y.npy"])
    with pytest.raises(DataError, match="damaged"):
        stage(tmp_path, tmp_path / "a.npz")


# --- images that cannot be used

WHOLE = png(77, 40, 40)
BAD = {
    "no image": (b"no image at all", "no image of a format"),
    "cut short": (WHOLE[: len(WHOLE) // 2], "cut short"),
    "zero size": (png_head(0, 9), "no pixels"),
    "huge": (png_head(9_000, 9_000), "huge"),
    "empty": (b"", r"empty \(0 bytes\)"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_labelled_image_that_cannot_be_used_is_refused_by_name(tmp_path, what):
    data, said = BAD[what]
    folder = class_folder(tmp_path / "pets")
    (folder / "dog" / "bad.png").write_bytes(data)
    with pytest.raises(
        DataError, match=rf"\(labelled\): 1 labelled images cannot.*dog/bad\.png.*{said}"
    ):
        stage(tmp_path, folder)


def test_a_row_without_a_file_name_is_named_by_its_number(tmp_path):
    rows: dict[str, list[object]] = {
        "image": [png(i) for i in range(7)] + [b"junk", None],
        "label": ["a", "b", "b"] * 3,
    }
    with pytest.raises(DataError, match=r"2 labelled images.*such as row 7 of .*rows\.parquet: it"):
        stage(tmp_path, write(tmp_path / "rows.parquet", rows))


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("pets/cat/none.png", r"none\.png does not exist"),
        ("pets", r"pets is a folder"),
        ("pipe.png", r"pipe\.png is no file"),
        ("vast.png", r"vast\.png is larger than 256 MB"),
        ("", "row 1 has no image"),
    ],
)
def test_paths_that_lead_to_no_image_are_refused_by_name(tmp_path, cell, said):
    class_folder(tmp_path / "pets")
    os.mkfifo(tmp_path / "pipe.png")
    with (tmp_path / "vast.png").open("wb") as file:
        file.truncate(MOST_FILE_BYTES + 1)
    rows: dict[str, list[object]] = {
        "image": ["pets/cat/000.png", cell, "pets/dog/001.png"],
        "label": ["cat", "dog", "dog"],
    }
    path = write(tmp_path / "rows.csv", rows)
    with pytest.raises(DataError, match=said):
        stage(tmp_path, path, image=("image",))


def test_pool_images_that_cannot_be_used_are_left_out_and_counted(tmp_path):
    pool = flat_folder(tmp_path / "more")
    for name, (data, _) in BAD.items():
        (pool / f"bad {name}.png").write_bytes(data)
    splits = stage(tmp_path, class_folder(tmp_path / "pets"), pool)
    assert images(splits.pool) == [png(90_000 + i) for i in range(10)]
    assert splits.found["pool images that cannot be read"] == len(BAD)
    (note,) = [note for note in splits.notes if "cannot be read" in note]
    assert note.startswith("5 pool rows with an image that cannot be read were left out, such as ")
    assert "bad cut short.png: it is damaged or cut short" in note


def test_an_unusable_image_without_a_label_is_left_out_of_the_pool_too(tmp_path):
    rows: dict[str, list[object]] = {
        "image": [png(i) for i in range(40)] + [b"junk", png(41)],
        "label": ["a", "b"] * 20 + [None, None],
    }
    splits = stage(tmp_path, write(tmp_path / "rows.parquet", rows))
    assert images(splits.pool) == [png(41)]
    assert splits.found["pool images that cannot be read"] == 1


def test_a_pool_of_unusable_images_is_refused(tmp_path):
    path = write(tmp_path / "pool.csv", {"image": ["a.png", "b.png"]})
    with pytest.raises(DataError, match="0 blank rows, 2 with an image that cannot be read"):
        stage(tmp_path, class_folder(tmp_path / "pets"), path)


def test_mixed_sizes_and_modes_are_accepted_and_told(tmp_path):
    folder = class_folder(tmp_path / "pets")
    for i, mode in enumerate(["L", "LA", "P", "RGBA", "CMYK", "I;16"]):
        (folder / "cat" / f"{mode}.png").write_bytes(png(i, 5 + 5 * i, 30 - 5 * i, mode))
    splits = stage(tmp_path, folder)
    assert sum(map(len, (splits.labelled, splits.validation, splits.test))) == 26
    assert (
        "images in 'image' are 5 to 30 pixels wide and 4 to 30 high, modes CMYK, I;16, L, LA, P, "
        "RGB, RGBA; the student converts them." in splits.notes
    )


def test_workers_find_what_this_process_finds(tmp_path, monkeypatch):
    pool = flat_folder(tmp_path / "more", 30)
    (pool / "029.png").write_bytes(b"junk")
    labelled = class_folder(tmp_path / "pets")
    alone = prepare(DataConfig(labelled=labelled, pool=pool), tmp_path / "a", 0)
    monkeypatch.setattr(workers, "ALONE_SECONDS", 0.0)
    monkeypatch.setattr(workers, "worker_count", lambda: 2)
    monkeypatch.setattr("limbeck.data.cells.pieces", lambda sizes: pieces(sizes, 500))
    together = prepare(DataConfig(labelled=labelled, pool=pool), tmp_path / "b", 0)
    assert (together.notes, together.found) == (alone.notes, alone.found)
    assert images(together.pool) == images(alone.pool)


def test_an_opened_folder_of_images_is_compared_with_what_was_staged(tmp_path):
    folder = class_folder(tmp_path / "pets")
    stage(tmp_path, folder)
    assert len(stage(tmp_path, folder).test) == 4
    (folder / "cat" / "000.png").rename(folder / "dog" / "moved.png")
    with pytest.raises(DataError, match="pets has changed since"):
        stage(tmp_path, folder)


# --- memory


def test_pieces_cover_the_rows_in_order_within_the_limit():
    sizes = np.array([3, 3, 3, 50, 1, 9, 1, 0, 0, 10, 0])
    runs = [sizes[piece].tolist() for piece in pieces(sizes, 10)]
    assert [size for run in runs for size in run] == sizes.tolist()
    assert all(sum(run) <= 10 or len(run) == 1 for run in runs)
    assert runs == [[3, 3, 3], [50], [1, 9], [1, 0, 0], [10, 0]]


def test_staged_record_batches_stay_small_when_images_differ_in_size(tmp_path):
    small = pa.record_batch({"image": pa.array([b"x" * 10] * 3000, pa.large_binary())})
    large = pa.record_batch({"image": pa.array([b"y" * (3 << 20)] * 7, pa.large_binary())})
    with row_writer(tmp_path / "a.arrow") as writer:
        for batch in (small, large, small):
            writer.write(batch)
    table = pa.ipc.open_file(pa.memory_map(str(tmp_path / "a.arrow"))).read_all()
    assert table.column("image").to_pylist() == [
        *small.column("image").to_pylist(),
        *large.column("image").to_pylist(),
        *small.column("image").to_pylist(),
    ]
    assert max(batch.nbytes for batch in table.to_batches()) <= PIECE_BYTES + 8 * 6007


def test_images_in_one_row_group_are_read_in_pieces(tmp_path):
    cells = [bytes([i]) * (1 << 20) for i in range(20)]
    pq.write_table(pa.table({"image": cells, "n": range(20)}), tmp_path / "a.parquet")
    batches = list(
        read_batches(find_source(tmp_path / "a.parquet"), {"n": "number", "image": "image"})
    )
    assert [n for batch in batches for n in batch.column("n").to_pylist()] == list(range(20))
    assert max(batch.nbytes for batch in batches) <= 1.1 * PIECE_BYTES


# --- rows in memory


def test_rows_in_memory_are_the_same_images_whatever_holds_them(tmp_path, monkeypatch):
    raw = pixels(1, 3, 5, 7, 3)
    want = [netpbm(one) for one in raw]
    files = [tmp_path / f"{i}.ppm" for i in range(3)]
    for file, data in zip(files, want, strict=True):
        file.write_bytes(data)
    monkeypatch.chdir(tmp_path)
    opened = [Image.open(io.BytesIO(data)) for data in want]
    rows: list[object] = [
        raw,
        files,
        [str(file) for file in files],
        ["0.ppm", "1.ppm", "2.ppm"],
        want,
        opened,
        [files[0], want[1], opened[2]],
        list(raw),
        {"image": files},
        {"image": raw},
        {"image": want},
        [{"image": file} for file in files],
        pa.table({"image": want}),
        pa.table({"image": [{"bytes": data, "path": "x"} for data in want]}),
    ]
    for given in rows:
        assert as_batch(given, SCHEMA).column("image").to_pylist() == want, type(given)
    assert as_batch([], SCHEMA).num_rows == 0


def test_rows_in_memory_without_an_image_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"none\.png does not exist, expected the file"):
        as_batch([tmp_path / "none.png"], SCHEMA)
    with pytest.raises(DataError, match="row 1 has no image in column 'image'"):
        as_batch({"image": [png(1), None]}, SCHEMA)
    with pytest.raises(DataError, match=r"float64 with shape \(4, 5\)"):
        as_batch([np.zeros((4, 5))], SCHEMA)
    with pytest.raises(DataError, match=r"float64 of shape \(2, 4, 5\)"):
        as_batch(np.zeros((2, 4, 5)), SCHEMA)
    two = Schema(("t",), (), (), "label", ("a", "b"), ("image",))
    with pytest.raises(DataError, match=r"are images but the task reads \['t', 'image'\]"):
        as_batch(pixels(1, 2, 4, 5), two)


# --- teachers


def test_a_table_of_answers_is_found_by_the_images(tmp_path):
    splits = stage(tmp_path, class_folder(tmp_path / "pets"), flat_folder(tmp_path / "more"))
    files = sorted((tmp_path / "more").iterdir())
    answers: dict[str, list[object]] = {
        "image": [f"more/{file.name}" for file in files] + ["more/gone.png"],
        "prob_cat": [i / 10 for i in range(10)] + [0.5],
        "prob_dog": [1 - i / 10 for i in range(10)] + [0.5],
    }
    teacher = TableTeacher(write(tmp_path / "answers.csv", answers), splits.schema)
    said = teacher.say(splits.pool.table.to_batches()[0])
    assert said.failure == [None] * 10
    assert said.probs[:, 0].tolist() == pytest.approx([i / 10 for i in range(10)])


# --- messages and pages


def test_a_shared_picture_is_told_in_words_not_bytes(tmp_path):
    labelled = class_folder(tmp_path / "pets")
    test = class_folder(tmp_path / "test", 2)
    with pytest.raises(DataError, match=r"such as row 0: image=image 6 x 4; test rows must be"):
        stage(tmp_path, labelled, test=test)


def test_the_report_and_the_card_show_no_bytes():
    assert _short(png(1, 7, 5)) == "image 7 x 5"
    assert _short(0.25) == "0.25"
    assert _row(SCHEMA) == "{'image': 'path/of/an/image.png'}"
