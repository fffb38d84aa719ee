"""Small pictures for the report, read back by Pillow."""

import base64
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from limbeck.report.thumbnails import SIDE, thumbnail


def file_of(pixels, form="PNG"):
    with BytesIO() as file:
        Image.fromarray(pixels).save(file, form)
        return file.getvalue()


def opened(uri):
    head, _, body = uri.partition(";base64,")
    image = Image.open(BytesIO(base64.b64decode(body, validate=True)))
    assert head == f"data:image/{image.format.lower()}"
    return np.asarray(image.convert("RGB"), np.int64)


@pytest.mark.parametrize(("height", "width", "seen"), [(300, 150, (48, 24)), (8, 8, (8, 8))])
def test_a_large_image_becomes_small_and_a_small_one_stays(height, width, seen):
    ramp = np.linspace(0, 255, height * width).reshape(height, width).astype(np.uint8)
    got = opened(thumbnail(file_of(ramp)))
    assert got.shape == (*seen, 3)
    wanted = Image.fromarray(ramp).resize((seen[1], seen[0]), Image.Resampling.BICUBIC)
    assert np.abs(got[..., 0] - np.asarray(wanted, np.int64)).mean() < 4


def test_even_noise_takes_a_few_kilobytes():
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8)
    assert len(thumbnail(file_of(noise))) < 4_000
    assert max(opened(thumbnail(file_of(noise, "JPEG"))).shape) == SIDE


def test_colours_with_transparency_or_a_palette_are_read():
    red = np.zeros((20, 20, 4), np.uint8)
    red[..., 0] = red[..., 3] = 255
    assert opened(thumbnail(file_of(red)))[5, 5].tolist() == [255, 0, 0]


@pytest.mark.parametrize("data", [b"", b"no image", file_of(np.zeros((9, 9), np.uint8))[:40]])
def test_what_is_no_image_gives_no_picture(data):
    assert thumbnail(data) == ""
