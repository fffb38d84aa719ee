"""The encoder against numpy, the network against its shapes, training against a task of colours."""

import hashlib
import io
import json

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from torch import nn

from limbeck.data import images, pixels, workers
from limbeck.data.pieces import pieces
from limbeck.data.schema import Schema
from limbeck.distill.export import Probabilities, export_onnx, open_session
from limbeck.errors import ConfigError, DataError
from limbeck.search.counting import count
from limbeck.students import (
    ImageCnnConfig,
    ImageCnnEncoder,
    ImageCnnModule,
    Predictor,
    build,
    default_kind,
    image_rows,
    large_settings,
    load,
    pad_rows,
    save,
    seal,
)
from limbeck.students.image_cnn import halvings
from limbeck.students.sampling import spaced

SCHEMA = Schema((), (), (), label=None, classes=("no", "yes"), image=("photo",))
RNG = np.random.default_rng(0)


def column(files):
    return pa.RecordBatch.from_pydict({"photo": pa.array(files, pa.large_binary())})


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def colours(side, n=5):
    return RNG.integers(0, 256, (n, side, side, 3), dtype=np.uint8)


def fit(files, **settings):
    return ImageCnnEncoder.fit([column(files)], SCHEMA, ImageCnnConfig(**settings))


def module_of(size, channels=3, **settings):
    encoder = fit([png(p) for p in colours(size)], size=size, channels=channels)
    student = build(
        "image_cnn",
        ImageCnnConfig(size=size, channels=channels, **settings),
        SCHEMA,
        [column([png(p) for p in colours(size)])],
        2,
        torch.Generator().manual_seed(0),
    )
    return encoder, student.module


def test_rows_are_the_pixels_and_inputs_are_channels_first():
    squares = colours(12)
    encoder = fit([png(p) for p in squares])
    rows = encoder.encode(column([png(p) for p in squares]))
    np.testing.assert_array_equal(rows.values.reshape(squares.shape), squares)
    images = encoder.collate(rows)["images"]
    np.testing.assert_array_equal(images.numpy(), squares.transpose(0, 3, 1, 2))
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert pad_rows(rows).dtype == np.uint8


def test_files_large_enough_for_threads_give_the_same_rows_in_order():
    squares = colours(100, n=9)
    encoder = fit([png(p) for p in squares], size=100)
    files = column([png(p) for p in squares])
    assert files.nbytes > 9 * 16_384
    np.testing.assert_array_equal(encoder.encode(files).values.reshape(squares.shape), squares)


def test_mean_and_deviation_are_those_of_all_pixels():
    squares = colours(16, n=30)
    squares[:, :, :, 0] //= 3
    encoder = fit([png(p) for p in squares])
    np.testing.assert_allclose(encoder.mean, squares.mean(axis=(0, 1, 2)), rtol=1e-9)
    np.testing.assert_allclose(encoder.std, squares.std(axis=(0, 1, 2)), rtol=1e-9)
    grey = fit([png(p[:, :, 0]) for p in squares])
    np.testing.assert_allclose(grey.mean, [squares[:, :, :, 0].mean()], rtol=1e-9)
    mixed = fit([png(p) for p in squares], channels=1)
    luma = squares @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(mixed.mean, [luma.mean()], rtol=1e-9)
    plain = fit([png(np.full((9, 9), 7, np.uint8))] * 3)
    assert (plain.mean, plain.std) == ((7.0,), (1.0,))


def test_the_size_is_that_of_the_middle_row_and_at_most_64():
    def sides(*shapes):
        return fit([png(np.zeros((*shape, 3), np.uint8)) for shape in shapes]).config.size

    assert sides((28, 28)) == 28
    assert sides((20, 30), (12, 9), (50, 40)) == 30
    assert sides((300, 200)) == 64
    assert sides((3, 5)) == 8


def test_grey_rows_are_read_as_grey_also_from_rgb_files_and_one_colour_is_enough():
    grey = [np.repeat(p[:, :, :1], 3, axis=2) for p in colours(10)]
    assert fit([png(p) for p in grey]).config.channels == 1
    assert fit([png(p[:, :, 0]) for p in grey]).config.channels == 1
    assert fit([png(p) for p in [*grey, *colours(10, n=1)]]).config.channels == 3
    assert fit([png(p) for p in grey], channels=3).config.channels == 3


def test_only_spaced_rows_are_decoded():
    looked = []
    kept = spaced(range(10_000), 100, lambda row: looked.append(row) or row)
    assert kept == list(range(0, 10_000, 128))
    assert len(looked) < 500


def test_every_size_ends_with_a_map_of_three_to_six():
    for size in range(8, 225):
        side = size
        for _ in range(halvings(size)):
            side = (side + 1) // 2
        assert 3 <= side <= 6


@pytest.mark.parametrize("size", [8, 9, 16, 28, 45, 64, 224])
def test_the_network_works_at_every_size(size):
    encoder, module = module_of(size)
    files = column([png(p) for p in colours(size, n=2)])
    module.eval()
    embedding = module.embed(encoder.collate(encoder.encode(files)))
    assert embedding.shape == (2, 96)
    assert embedding.isfinite().all()
    maps = []
    for block in module.body:
        block.register_forward_hook(lambda *a: maps.append(a[2].shape[-1]))
    module.embed(encoder.collate(encoder.encode(files)))
    assert 3 <= maps[-1] <= 6
    assert len(maps) == (1 if size < 12 else 2)


def test_pixels_are_brought_to_mean_zero_and_deviation_one_whatever_their_type():
    encoder, module = module_of(16)
    images = encoder.collate(encoder.encode(column([png(p) for p in colours(16, n=4)])))["images"]
    seen = []
    module.stem[0].register_forward_hook(lambda *a: seen.append(a[1][0]))
    module.eval()
    whole = module.embed({"images": images})
    real = module.embed({"images": images.float()})
    assert torch.equal(whole, real)
    expected = images.numpy().astype(float).transpose(0, 2, 3, 1) - module.mean.flatten().numpy()
    expected /= module.std.flatten().numpy()
    np.testing.assert_allclose(seen[0].permute(0, 2, 3, 1).numpy(), expected, atol=1e-5)


def test_width_and_blocks_shape_the_network():
    def shapes(**settings):
        _, module = module_of(32, **settings)
        return [tuple(b.first.conv.weight.shape[:2]) for b in module.body]

    assert shapes(width=8) == [(8, 8), (24, 8)]
    assert shapes(width=8, blocks=2) == [(8, 8), (8, 8), (24, 8), (24, 24)]
    teacher = large_settings("image_cnn", SCHEMA)
    assert shapes(width=teacher.width, blocks=teacher.blocks)[-1] == (192, 192)


@pytest.mark.parametrize(
    ("size", "channels", "settings", "digest"),
    [
        (32, 3, {}, "5c9d29307fdaae358adf5953b97c8294452cbfc1cf65e17df833614393052aac"),
        (10, 1, {}, "bc1984361f31045854958cfe0f89cbc20609139e7d477f51c586cae7ff2c8f13"),
        (
            *(64, 3, {"width": 64, "blocks": 2}),
            "8cba5665e02cbbe4be7d1b8dfba82c09a7beb6d77237e568704e40045acace2d",
        ),
        (
            *(28, 1, {"width": 12, "blocks": 3}),
            "e17d17c08e8990c82d54ddeea4a05bfc5f655ca6ff634b25e57e2b86e1ff04aa",
        ),
    ],
)
def test_weights_are_those_of_the_network_before_stages_could_be_set(
    size, channels, settings, digest
):
    config = ImageCnnConfig(size=size, channels=channels, **settings)
    module = drawn(config, 5)
    found = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype};".encode())
        found.update(tensor.numpy().tobytes())
    assert found.hexdigest() == digest


def drawn(config, outputs):
    encoder = ImageCnnEncoder("photo", config, (7.0,) * config.channels, (3.0,) * config.channels)
    return ImageCnnModule(encoder, config, outputs, torch.Generator().manual_seed(0))


def macs(**settings):
    """Of one grey image of 32 pixels, in a network of width 8 with one output."""
    config = ImageCnnConfig(size=32, channels=1, **{"width": 8, **settings})
    return count(Pictures(drawn(config, 1)), torch.zeros(1, 1, 32, 32)).macs


class Pictures(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, images):
        return self.module({"images": images}).outputs


PLAIN = 256 * 9 * 8 + 64 * (9 * 64 * 2 + 64) + 16 * (9 * 8 * 24 + 9 * 24 * 24 + 8 * 24) + 24


@pytest.mark.parametrize(
    ("settings", "change"),
    [
        ({}, 0),
        ({"last_width": 24, "last_blocks": 1, "kernel": 3, "last_kernel": 3}, 0),
        ({"last_width": 10}, 16 * (9 * (80 - 192 + 100 - 576) + 80 - 192) + 10 - 24),
        ({"blocks": 3, "last_blocks": 1}, 64 * 9 * 64 * 4),
        ({"last_blocks": 3}, 16 * 9 * 576 * 4),
        ({"kernel": 5}, 64 * (25 - 9) * 64 * 2),
        ({"last_kernel": 5}, 16 * (25 - 9) * (192 + 576)),
        ({"expansion": 2.0}, 64 * 9 * 64 * 2 + 16 * 9 * (192 + 576)),
        ({"expansion": 0.5}, -(64 * 9 * 64 + 16 * 9 * (192 + 576) // 2)),
        # 9 channels: five inside.
        (
            {"last_width": 9, "expansion": 0.5},
            16 * (9 * (8 * 5 + 5 * 9 - 192 - 576) + 8 * 9 - 192) + 9 - 24 - 64 * 9 * 64,
        ),
    ],
)
def test_each_setting_of_a_stage_changes_the_multiply_adds_as_it_says(settings, change):
    assert macs(**settings) == PLAIN + change


ODD = {
    **{"width": 6, "last_width": 10, "blocks": 2, "last_blocks": 1},
    **{"kernel": 5, "last_kernel": 3, "expansion": 0.5},
}


def odd_student():
    rows = column([png(p) for p in colours(16, n=6)])
    settings = {"size": 16, "channels": 3, **ODD}
    return build("image_cnn", settings, SCHEMA, [rows], 2, torch.Generator().manual_seed(3)), rows


def test_settings_of_stages_come_back_from_a_folder(tmp_path):
    student, rows = odd_student()
    save(student, tmp_path)
    back = load(tmp_path).student
    assert back.module.settings == student.module.settings
    assert back.encoder.config == student.encoder.config
    assert back.module.embedding_dim == 10
    padded = torch.from_numpy(pad_rows(student.encoder.encode(rows)))
    module = student.module.eval()
    assert torch.equal(back.module.embed_padded(padded), module.embed_padded(padded))


def test_a_folder_from_before_stages_could_be_set_opens_as_it_was(tmp_path):
    rows = column([png(p) for p in colours(16, n=6)])
    student = build("image_cnn", {"width": 8}, SCHEMA, [rows], 2, torch.Generator().manual_seed(0))
    save(student, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for part in ("settings", "encoder"):
        for name in ("last_width", "last_blocks", "kernel", "last_kernel", "expansion"):
            del config[part][name]
    (tmp_path / "config.json").write_text(json.dumps(config))
    seal(tmp_path)
    back = load(tmp_path)
    assert back.student.module.settings == student.module.settings
    assert back.student.encoder.config == student.encoder.config
    student.module.eval()
    assert np.array_equal(
        back.probabilities(rows), Predictor(student, 1, 0, {}).probabilities(rows)
    )


@pytest.mark.slow
def test_settings_of_stages_are_in_the_onnx_file(tmp_path):
    pytest.importorskip("onnxruntime", reason="needs the extra export")
    student, rows = odd_student()
    save(student, tmp_path)
    export_onnx(student, tmp_path, temperature=1.0, sample=rows)
    padded = pad_rows(student.encoder.encode(rows))
    with torch.no_grad():
        expected = Probabilities(student.module.eval(), 1.0)(torch.from_numpy(padded)).numpy()
    found = open_session(tmp_path / "model.onnx").run(None, {"rows": padded})[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_default_student_is_under_a_megabyte():
    _, module = module_of(32)
    assert sum(p.numel() * 4 for p in module.parameters()) < 0.6e6


def test_augment_none_light_rand_and_flip():
    squares = colours(16, n=64)
    files = [png(p) for p in squares]

    def varied(**settings):
        encoder = fit(files, **settings)
        inputs = encoder.collate(encoder.encode(column(files)))
        out = encoder.augment(inputs, torch.Generator().manual_seed(0))["images"].numpy()
        return out.transpose(0, 2, 3, 1)

    np.testing.assert_array_equal(varied(augment="none"), squares)
    light = varied()
    crops = [
        [
            np.array_equal(a[2 + y : 14 + y, 2 + x : 14 + x], b[2:14, 2:14])
            for a, b in zip(squares, light, strict=True)
        ]
        for y in range(-2, 3)
        for x in range(-2, 3)
    ]
    assert np.any(crops, axis=0).all()
    flipped = varied(augment="none", flip=True)
    same = [np.array_equal(a, b) for a, b in zip(squares, flipped, strict=True)]
    mirror = [np.array_equal(a, b[:, ::-1]) for a, b in zip(squares, flipped, strict=True)]
    assert 15 < sum(same) < 49
    assert sum(same) + sum(mirror) == 64
    assert not np.array_equal(varied(augment="rand"), light)


@pytest.mark.slow
def test_it_learns_a_shape_wherever_it_stands():
    """Crosses against squares of the same brightness, moved about: no pixel tells them apart."""
    generator = np.random.default_rng(1)

    def draw(n):
        labels = generator.integers(0, 2, n)
        pictures = generator.integers(0, 60, (n, 16, 16)).astype(np.uint8)
        for picture, label in zip(pictures, labels, strict=True):
            y, x = generator.integers(0, 12, 2)
            spots = (
                [(0, 0), (0, 4), (4, 0), (4, 4), (2, 2)]
                if label
                else [(0, 2), (2, 0), (2, 4), (4, 2), (2, 2)]
            )
            for down, right in spots:
                picture[y + down, x + right] = 255
        return column([png(p) for p in pictures]), torch.from_numpy(labels)

    rows, labels = draw(256)
    student = build("image_cnn", {"width": 8}, SCHEMA, [rows], 2, torch.Generator().manual_seed(0))
    encoder, module = student.encoder, student.module
    inputs = encoder.collate(encoder.encode(rows))
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-2)
    torch.manual_seed(0)
    module.train()
    for step in range(40):
        varied = encoder.augment(inputs, torch.Generator().manual_seed(step))
        loss = torch.nn.functional.cross_entropy(module(varied).outputs, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    new, truth = draw(200)
    module.eval()
    with torch.no_grad():
        guess = module(encoder.collate(encoder.encode(new))).outputs.argmax(1)
    assert float((guess == truth).float().mean()) > 0.9


def test_what_pillow_only_warns_of_is_no_warning_of_ours():
    image = Image.fromarray(colours(12, n=1)[0]).quantize(8)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", transparency=bytes([0, 90, 255]))
    file = column([buffer.getvalue()])
    with pytest.warns(UserWarning, match="Transparency"):
        Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")
    encoder = fit([buffer.getvalue()])
    encoder.encode(file)


def test_many_images_are_decoded_by_workers_as_they_are_here_piece_by_piece(monkeypatch):
    sizes = RNG.integers(5, 40, 23)
    rows = column([png(RNG.integers(0, 256, (s, s, 3), dtype=np.uint8)) for s in sizes])
    encoder = ImageCnnEncoder.fit([rows], SCHEMA, ImageCnnConfig(size=16))
    expected = encoder.encode(rows)
    monkeypatch.setattr(workers, "ALONE_SECONDS", 0.0)
    monkeypatch.setattr(workers, "worker_count", lambda: 2)
    monkeypatch.setattr(image_rows, "pieces", lambda sizes: pieces(sizes, 3_000))
    parts = list(encoder.encode_all([rows.slice(0, 9), rows.slice(9, 0), rows.slice(9)]))
    assert [len(part) for part in parts] == [9, 0, 14]
    assert np.array_equal(np.concatenate([part.values for part in parts]), expected.values)
    assert np.array_equal(np.concatenate([part.lengths for part in parts]), expected.lengths)
    spoilt = column([*rows.column("photo").to_pylist(), b"junk"])
    with pytest.raises(DataError, match="an image of the column 'photo' cannot be used"):
        list(encoder.encode_all([spoilt]))


def test_what_is_refused_here_is_refused_when_data_are_read():
    assert (pixels.FORMATS, pixels.MOST_PIXELS) == (images.FORMATS, images.MOST_PIXELS)
    assert pixels.UNREAD_MODES == images.UNREAD_MODES


@pytest.mark.parametrize("mode", pixels.UNREAD_MODES)
def test_colours_without_a_certain_meaning_are_refused_by_both(mode):
    buffer = io.BytesIO()
    Image.new(mode, (9, 7)).save(buffer, "TIFF")
    data = buffer.getvalue()
    assert f"mode {mode}" in images.check_image(data)
    with pytest.raises(ValueError, match=f"mode {mode}"):
        pixels.decode(data, 8, 1)


def test_images_choose_this_kind():
    assert default_kind(SCHEMA) == "image_cnn"


@pytest.mark.parametrize("image", [(), ("a", "b")])
def test_a_task_without_one_image_column_is_refused(image):
    schema = Schema(("t",), (), (), label=None, classes=("no", "yes"), image=image)
    with pytest.raises(ConfigError, match=r"reads one image column but the schema has .*inputs: t"):
        build("image_cnn", {}, schema, [], 2, torch.Generator())


def test_no_rows_are_refused():
    with pytest.raises(DataError, match="0 rows"):
        build("image_cnn", {}, SCHEMA, [], 2, torch.Generator())


@pytest.mark.parametrize("file", [b"", None, b"not an image", png(colours(30, n=1)[0])[:300]])
def test_a_file_that_cannot_be_decoded_is_refused_with_its_column_and_the_reason(file):
    encoder = fit([png(p) for p in colours(10)])
    for act in (lambda: encoder.encode(column([file])), lambda: fit([file])):
        with pytest.raises(DataError, match=r"column 'photo' cannot be used: it.*save it again"):
            act()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("size", 7),
        ("size", 225),
        ("size", -1),
        ("channels", 2),
        ("channels", 4),
        ("width", 0),
        ("blocks", 0),
        ("last_width", -1),
        ("last_width", 3073),
        ("last_blocks", 17),
        ("last_blocks", -1),
        ("kernel", 1),
        ("last_kernel", 4),
        ("expansion", 0.0),
        ("expansion", 3.0),
        ("dropout", 1.0),
        ("augment", "heavy"),
    ],
)
def test_a_bad_value_of_each_setting_is_refused_by_name(name, value):
    with pytest.raises(ConfigError, match=name):
        ImageCnnConfig(**{name: value})


def test_wrong_settings_class_and_broken_config_are_refused():
    with pytest.raises(ConfigError, match="ImageCnnConfig"):
        build("image_cnn", object(), SCHEMA, [], 2, torch.Generator())
    with pytest.raises(ConfigError, match="a name and two"):
        ImageCnnEncoder.from_config({**fit([png(colours(9)[0])]).to_config(), "mean": 3})
    with pytest.raises(ConfigError, match="flip"):
        build("image_cnn", {"flip": 1}, SCHEMA, [], 2, torch.Generator())
