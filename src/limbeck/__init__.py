"""Limbeck: make small models good and good models small.

Importing it is quick: PyTorch and everything else heavy are loaded by the part that needs them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from limbeck.students import Predictor

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def load(folder: str | Path) -> Predictor:
    """Open a student folder that a run, or `limbeck.students.save`, has written.

    Args:
        folder: The folder with `model.safetensors`, `config.json` and `SHA256SUMS`.

    Returns:
        A predictor with `predict`, `predict_proba`, `defer` and `classes`.

    Raises:
        StudentError: a file is missing or was changed, or the folder is of another version.
    """
    from limbeck.students import load as load_folder

    return load_folder(folder)
