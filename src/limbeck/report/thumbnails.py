"""Pictures small enough to lie inside a report."""

import base64
import warnings
from io import BytesIO

from PIL import Image

from limbeck.data.images import FORMATS

SIDE = 48
"""Pixels of the longer side, at most."""
_QUALITY = 70


def thumbnail(data: bytes) -> str:
    """Make a small picture of an image file.

    Args:
        data: The file's bytes.

    Returns:
        A data URI of a JPEG or a PNG, whichever is smaller, a few kilobytes at most; empty where
        the image cannot be read.

    Cost: decodes the image once.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(BytesIO(data), formats=FORMATS) as image:
                small = image.convert("RGB")
        small.thumbnail((SIDE, SIDE))
        encoded = [_encoded(small, "jpeg", quality=_QUALITY), _encoded(small, "png")]
    except Exception:  # decoders raise whatever a damaged file makes them raise
        return ""
    return min(encoded, key=len)


def _encoded(image: Image.Image, form: str, *, quality: int = 0) -> str:
    with BytesIO() as file:
        image.save(file, form, optimize=True, **({"quality": quality} if quality else {}))
        text = base64.b64encode(file.getvalue()).decode("ascii")
    return f"data:image/{form};base64,{text}"
