"""Single images: which can be used, what is said of the others, and raw pixels as files."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from limbeck.data import check_image
from limbeck.data.images import MOST_PIXELS, describe, from_pillow, look, netpbm

from .pictures import pixels, png, png_head

MODES = ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"]


@pytest.mark.parametrize("mode", MODES)
def test_images_of_every_mode_can_be_used_and_are_described(mode):
    data = png(1, 7, 5, mode)
    assert check_image(data) is None
    assert look(data) == (None, mode, 7, 5)
    assert describe(data) == "image 7 x 5"


@pytest.mark.parametrize("form", ["PPM", "JPEG", "GIF", "BMP", "WEBP", "TIFF"])
def test_every_format_can_be_used(form):
    with BytesIO() as file:
        Image.fromarray(pixels(1, 16, 16, 3)).save(file, form)
        assert check_image(file.getvalue()) is None


def test_a_format_that_starts_other_programs_is_not_read():
    with BytesIO() as file:
        Image.fromarray(pixels(1, 16, 16, 3)).save(file, "EPS")
        assert "no image of a format that is read (PPM, PNG" in check_image(file.getvalue())


def test_images_that_cannot_be_used_are_refused_in_words():
    whole = png(1, 40, 40)
    assert check_image(b"") == "it is empty (0 bytes)"
    assert "no image of a format" in check_image(b"no image at all")
    assert "no pixels" in check_image(png_head(0, 5))
    assert "cut short" in check_image(whole[: len(whole) // 2])
    with BytesIO() as file:
        Image.fromarray(pixels(1, 64, 64, 3)).save(file, "JPEG")
        assert "cut short" in check_image(file.getvalue()[:-900])


@pytest.mark.parametrize(("width", "height"), [(8_001, 8_000), (10_000, 10_000), (60_000, 60_000)])
def test_huge_images_are_refused_before_they_are_decoded(width, height):
    assert width * height > MOST_PIXELS
    assert "huge" in check_image(png_head(width, height))


def test_the_largest_size_is_not_refused_as_huge():
    assert "huge" not in check_image(png_head(8_000, 8_000))


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3)])
def test_raw_pixels_become_a_file_that_holds_them(shape):
    raw = pixels(3, *shape)
    data = netpbm(raw)
    assert data.startswith(b"P6 7 5 255\n" if shape[-1] == 3 else b"P5 7 5 255\n")
    with Image.open(BytesIO(data)) as image:
        assert (np.asarray(image) == raw.squeeze()).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_pillow_images_are_written_without_loss(mode):
    with Image.open(BytesIO(png(1, 7, 5, mode))) as image:
        image.load()
        with Image.open(BytesIO(from_pillow(image))) as again:
            assert again.convert("RGBA").tobytes() == image.convert("RGBA").tobytes()


def test_what_cannot_be_opened_is_described_by_its_size():
    assert describe(b"x" * 1234) == "image of 1,234 bytes"
    assert describe(None) == "no image"
