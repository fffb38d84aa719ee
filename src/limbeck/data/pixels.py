"""Image files to squares of pixels, in numpy and Pillow alone.

Nothing else is imported here, because an exported student carries this file word for word in its
`example.py`. What is done to a file, in this order:

- the first frame is turned as its EXIF orientation says;
- transparent parts are laid over white; 16-bit greys keep their upper 8 bits; every other mode
  (palette, CMYK, ...) becomes grey or RGB by Pillow's rules;
- the whole image is squeezed into the square (bilinear, smoothed where it shrinks): its shape is
  lost, but nothing that the class may depend on is cut off. An image that has the size already
  keeps its pixels bit for bit.
"""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

FORMATS = ("PPM", "PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF")
"""Pillow's names of the formats that are read: some of its other readers start outside programs."""
MOST_PIXELS = 64_000_000
"""A larger image is refused before it is decoded: a small file can ask for all the memory."""

UNREAD_MODES = ("F", "LAB")
"""Pillow's names of colours that it would clip or cannot convert: floats may mean any range."""


def decode(data: bytes, size: int, channels: int) -> NDArray[np.uint8]:
    """Decode an image file into a square of pixels.

    Args:
        data: The bytes of a file in one of `FORMATS`.
        size: Side of the square, pixels, >= 1.
        channels: 1 for grey, 3 for RGB.

    Returns:
        uint8, shape (size, size, channels).

    Raises:
        ValueError: the file cannot be decoded, is empty, or has more than 64 million pixels.
    """
    image = open_image(data)
    try:
        # A JPEG is decoded at a half, quarter or eighth where that leaves at least twice the size.
        image.draft(None, (2 * size, 2 * size))
        image.load()
        image = flatten(ImageOps.exif_transpose(image), "L" if channels == 1 else "RGB")
        if image.size != (size, size):
            image = image.resize((size, size), Image.Resampling.BILINEAR)
    except Exception as error:  # Pillow's readers raise whatever they stumble over
        raise ValueError(f"its pixels cannot be decoded ({error})") from error
    return np.asarray(image, dtype=np.uint8).reshape(size, size, channels)


def open_image(data: bytes) -> Image.Image:
    """Read the head of an image file, which tells its mode and size, but not its pixels.

    Raises:
        ValueError: it is in none of `FORMATS`, too large, or of a mode that is not read.
    """
    if not data:
        raise ValueError("it is empty")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Exception as error:  # also a warning about its size that was made an error
        reason = f"not {', '.join(FORMATS)}" if "BytesIO" in str(error) else str(error)
        raise ValueError(f"it is no image that can be read ({reason})") from error
    if image.width * image.height > MOST_PIXELS:
        raise ValueError(
            f"it has {image.width} x {image.height} pixels, more than {MOST_PIXELS:,} in all"
        )
    if image.mode in UNREAD_MODES:
        raise ValueError(f"its colours are not read (mode {image.mode}); save it as 8-bit RGB")
    return image


def flatten(image: Image.Image, mode: str) -> Image.Image:
    """Give an image the mode "L" or "RGB", over white where it is transparent."""
    if image.mode.startswith("I"):
        # 16 bits; Pillow's own conversion clips everything above 255 to white.
        values = np.asarray(image).astype(np.int64)
        image = Image.fromarray((values.clip(0, 65_535) >> 8).astype(np.uint8))
    if image.mode in ("LA", "La", "RGBA", "RGBa", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == mode else image.convert(mode)
