"""Images as the bytes of their files: whether one can be used, and what is in it.

Only Pillow and numpy are needed here, so that a worker process is ready at once.
"""

import warnings
from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image, UnidentifiedImageError

from limbeck.data import pixels

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ENDINGS = (
    ".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm",
)  # fmt: skip
"""File endings that are taken for images, in lower case."""
# What is read here is what students read.
FORMATS, MOST_PIXELS = pixels.FORMATS, pixels.MOST_PIXELS
UNREAD_MODES = pixels.UNREAD_MODES
_AS_PNG = ("1", "LA", "P", "RGBA", "I;16")


class Look(NamedTuple):
    """What decoding an image has shown.

    Args:
        fault: Why it cannot be used, or None.
        mode: Pillow's name of its colours, such as L, RGB or RGBA.
        width: In pixels.
        height: In pixels.
    """

    fault: str | None
    mode: str = ""
    width: int = 0
    height: int = 0


def check_image(data: bytes) -> str | None:
    """Why the bytes of an image file cannot be used as an image, in words, or None.

    Cost: decodes the image once.
    """
    return look(data).fault


def look(data: bytes | None) -> Look:
    """Decode an image; the first picture where there are several."""
    if data is None:
        return Look("there is no image")
    if not data:
        return Look("it is empty (0 bytes)")
    try:
        # Pillow warns of what is oddly written; it can be used, or raises.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(BytesIO(data), formats=FORMATS) as image:
                width, height = image.size
                if width * height > MOST_PIXELS:
                    return Look(_huge(f"{width} x {height}"))
                mode = image.mode
                if mode in UNREAD_MODES:
                    return Look(f"its colours are not read (mode {mode}); save it as 8-bit RGB")
                image.load()
                return Look(None, mode, width, height)
    except UnidentifiedImageError:
        return Look(f"it has no pixels or is no image of a format that is read ({_formats()})")
    except Image.DecompressionBombError:
        return Look(_huge("far more"))
    except Exception as error:  # decoders raise whatever a damaged file makes them raise
        return Look(f"it is damaged or cut short ({_first_line(error)})")


def look_at_all(images: Sequence[bytes | None]) -> list[Look]:
    """Decode images one after the other: the work of a worker process."""
    return [look(data) for data in images]


def describe(data: bytes | None) -> str:
    """An image in words, such as "image 32 x 32", from its head alone."""
    if data is None:
        return "no image"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(BytesIO(data), formats=FORMATS) as image:
                return f"image {image.width} x {image.height}"
    except Exception:  # as in `look`; a description is never a reason to stop
        return f"image of {len(data):,} bytes"


def netpbm(pixels: "NDArray[np.uint8]") -> bytes:
    """Pixels as a binary PGM or PPM file: the same bytes whatever wrote them, so ids hold.

    Args:
        pixels: uint8, shape (H, W), (H, W, 1) or (H, W, 3).
    """
    colours = pixels.ndim == 3 and pixels.shape[2] == 3
    height, width = pixels.shape[:2]
    return _netpbm(colours, width, height, pixels.tobytes())


def is_pixels(dtype: "np.dtype[np.generic]", shape: tuple[int, ...]) -> bool:
    """Whether an array holds images: uint8 of shape (n, H, W), (n, H, W, 1) or (n, H, W, 3)."""
    formed = len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3))
    return dtype == "uint8" and formed and min(shape[1:]) > 0


def from_pillow(image: Image.Image) -> bytes:
    """An open Pillow image as the bytes of a file without loss: PGM, PPM or PNG."""
    if image.mode in _AS_PNG:
        with BytesIO() as file:
            image.save(file, "PNG")
            return file.getvalue()
    plain = image if image.mode in ("L", "RGB") else image.convert("RGB")
    return _netpbm(plain.mode == "RGB", plain.width, plain.height, plain.tobytes())


def _netpbm(colours: bool, width: int, height: int, data: bytes) -> bytes:
    return f"{'P6' if colours else 'P5'} {width} {height} 255\n".encode() + data


def _huge(size: str) -> str:
    return f"it is huge ({size} pixels, at most {MOST_PIXELS // 1_000_000} million are read)"


def _formats() -> str:
    return ", ".join(FORMATS)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
