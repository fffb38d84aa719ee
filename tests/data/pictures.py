"""Small image files for tests."""

import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image


def pixels(i: int, *shape: int) -> np.ndarray:
    """Distinct noise for every i, uint8."""
    return np.random.default_rng(i).integers(0, 256, shape, np.uint8)


def png(i: int, width: int = 6, height: int = 4, mode: str = "RGB") -> bytes:
    """A PNG (TIFF where PNG does not know the mode)."""
    with BytesIO() as file:
        image = Image.fromarray(pixels(i, height, width, 3))
        if mode == "I;16":
            image = Image.fromarray(pixels(i, height, width).astype(np.uint16) * 250)
        elif mode != "RGB":
            image = image.convert(mode)
        image.save(file, "TIFF" if mode == "CMYK" else "PNG")
        return file.getvalue()


def png_head(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds no pixels."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    end = b"IEND"
    chunks = (
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (head, end)
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def class_folder(folder: Path, per_class: int = 10, classes: tuple[str, ...] = ("cat", "dog")):
    """`folder/<class>/<number>.png`."""
    for c, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i in range(per_class):
            (folder / name / f"{i:03}.png").write_bytes(png(1000 * c + i))
    return folder


def flat_folder(folder: Path, count: int = 10) -> Path:
    """`folder/<number>.png`, other pictures than those of `class_folder`."""
    folder.mkdir(parents=True)
    for i in range(count):
        (folder / f"{i:03}.png").write_bytes(png(90_000 + i))
    return folder
