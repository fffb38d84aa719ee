"""Oracles: pixels that were put into the file, and Pillow's own steps done one by one by hand."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from limbeck.data.pixels import decode

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (32, 32, 3), dtype=np.uint8)


def file(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "PPM", "BMP"])
@pytest.mark.parametrize("size", [8, 28, 32])
def test_an_image_of_the_right_size_keeps_every_pixel(kind, size):
    square = RNG.integers(0, 256, (size, size, 3), dtype=np.uint8)
    np.testing.assert_array_equal(decode(file(Image.fromarray(square), kind), size, 3), square)
    grey = square[:, :, 0]
    np.testing.assert_array_equal(decode(file(Image.fromarray(grey), kind), size, 1)[:, :, 0], grey)
    # Grey as RGB is three times the same; RGB of one grey as grey is that grey.
    three = decode(file(Image.fromarray(grey), kind), size, 3)
    np.testing.assert_array_equal(three, np.repeat(grey[:, :, None], 3, axis=2))
    np.testing.assert_array_equal(
        decode(file(Image.fromarray(three), kind), size, 1)[:, :, 0], grey
    )


def test_raw_arrays_as_binary_pgm_and_ppm_come_back():
    pgm = b"P5 32 32 255\n" + COLOURS[:, :, 0].tobytes()
    np.testing.assert_array_equal(decode(pgm, 32, 1)[:, :, 0], COLOURS[:, :, 0])
    np.testing.assert_array_equal(decode(b"P6 32 32 255\n" + COLOURS.tobytes(), 32, 3), COLOURS)


def test_exif_turns_the_image():
    for orientation, turned in {
        2: COLOURS[:, ::-1],
        3: COLOURS[::-1, ::-1],
        6: np.rot90(COLOURS, -1),
        8: np.rot90(COLOURS),
    }.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        got = decode(file(Image.fromarray(COLOURS), exif=exif), 32, 3)
        np.testing.assert_array_equal(got, turned)


def test_transparent_pixels_are_mixed_with_white():
    alpha = RNG.integers(0, 256, (32, 32, 1), dtype=np.uint8)
    alpha[:4], alpha[4:8] = 0, 255
    got = decode(file(Image.fromarray(np.concatenate([COLOURS, alpha], axis=2))), 32, 3)
    share = alpha / 255
    np.testing.assert_allclose(got, share * COLOURS + (1 - share) * 255, atol=1)
    assert (got[:4] == 255).all()
    np.testing.assert_array_equal(got[4:8], COLOURS[4:8])
    grey = np.concatenate([COLOURS[:, :, :1], alpha], axis=2)
    expected = share * COLOURS[:, :, :1] + (1 - share) * 255
    np.testing.assert_allclose(decode(file(Image.fromarray(grey)), 32, 1), expected, atol=1)


def test_palettes_with_and_without_transparency():
    image = Image.fromarray(COLOURS).quantize(16)
    plain = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(decode(file(image), 32, 3), plain)
    clear = decode(file(image, transparency=0), 32, 3)
    hidden = np.asarray(image) == 0
    assert (clear[hidden] == 255).all()
    np.testing.assert_array_equal(clear[~hidden], plain[~hidden])


def test_black_and_white_and_cmyk():
    bits = RNG.random((32, 32)) < 0.5
    np.testing.assert_array_equal(decode(file(Image.fromarray(bits)), 32, 1)[:, :, 0], bits * 255)
    inks = np.zeros((32, 32, 4), dtype=np.uint8)
    inks[:, :16, 0] = 255  # all cyan: no red
    got = decode(file(Image.fromarray(inks, mode="CMYK"), "TIFF"), 32, 3)
    np.testing.assert_array_equal(got[:, :16], np.broadcast_to([0, 255, 255], (32, 16, 3)))
    assert (got[:, 16:] == 255).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_keep_their_upper_eight(kind, channels):
    deep = RNG.integers(0, 65_536, (32, 32), dtype=np.uint16)
    got = decode(file(Image.fromarray(deep), kind), 32, channels)
    for channel in range(channels):
        np.testing.assert_array_equal(got[:, :, channel], deep >> 8)


def test_another_shape_is_squeezed_whole_into_the_square():
    wide = np.zeros((10, 80, 3), dtype=np.uint8)
    wide[:, 40:, 1] = 200
    got = decode(file(Image.fromarray(wide)), 8, 3)
    # Bilinear: right of the middle all green, left of it none, one pixel of each side mixed.
    assert (got[:, :3] == 0).all()
    np.testing.assert_array_equal(got[:, 5:], np.broadcast_to([0, 200, 0], (8, 3, 3)))


def test_shrinking_is_smooth_and_growing_keeps_plain_areas():
    stripes = np.zeros((64, 64), dtype=np.uint8)
    stripes[:, ::2] = 255
    assert (
        np.abs(decode(file(Image.fromarray(stripes)), 16, 1)[2:-2, 2:-2].astype(int) - 128).max()
        < 8
    )
    flat = np.full((3, 5), 77, dtype=np.uint8)
    assert (decode(file(Image.fromarray(flat)), 16, 1) == 77).all()


def test_a_large_jpeg_is_what_it_is_without_the_shortcut():
    photo = Image.fromarray(COLOURS).resize((640, 480), Image.Resampling.BICUBIC)
    data = file(photo, "JPEG", quality=95)
    slow = Image.open(io.BytesIO(data)).convert("RGB").resize((32, 32), Image.Resampling.BILINEAR)
    gap = np.abs(decode(data, 32, 3).astype(int) - np.asarray(slow).astype(int))
    assert gap.mean() < 4
    assert gap.max() < 40


def test_of_an_animation_the_first_frame_counts():
    frames = [Image.fromarray(np.full((16, 16), v, dtype=np.uint8)) for v in (10, 200)]
    data = file(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (decode(data, 16, 1) == 10).all()


def png_head(width, height):
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + b"\0\0\0\0"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it is empty"),
        (b"no image at all", "not PPM, PNG"),
        (file(Image.fromarray(COLOURS))[:200], "cannot be decoded"),
        (file(Image.fromarray(COLOURS), "JPEG")[:-300], "cannot be decoded"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not PPM, PNG"),
        (png_head(9_000, 9_000), "9000 x 9000 pixels, more than 64,000,000"),
        (png_head(60_000, 60_000), "can be read|more than"),
        (png_head(0, 5), "can be read|decoded"),
    ],
)
def test_what_cannot_be_decoded_is_refused_with_the_reason(data, message):
    with pytest.raises(ValueError, match=message):
        decode(data, 32, 3)
