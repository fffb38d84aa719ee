"""Token ids of texts, from a trained tokenizer, in numpy and the package `tokenizers` alone.

Nothing else is imported here, because an exported student carries this file word for word in its
`example.py`. The definition, row by row:

1. A text longer than 6 `max_tokens` characters keeps that many: half from its beginning and half
   from its end. It is brought to Unicode's form C and lower-cased. A missing text is empty.
2. The tokenizer splits each text into byte pairs; 3 is added to their ids. 0 is left free for
   padding, 1 begins every row, 2 stands between the texts of a row. So no text can write these.
3. A row of more than `max_tokens` ids keeps that many: the first half and the last.
"""

import unicodedata
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

START, BETWEEN, FIRST = 1, 2, 3
_CHARS_PER_TOKEN = 6


def encode_columns(
    tokenizer: Tokenizer, columns: Sequence[Sequence[str | None]], max_tokens: int
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Encode n rows of texts.

    Args:
        tokenizer: Trained.
        columns: For each column its n texts; at least one column.
        max_tokens: Ids that a row may have, >= 1.

    Returns:
        All rows' ids, int32, shape (N,), and the number of each row, int64, shape (n,).
    """
    rows: list[list[int]] = [[START] for _ in columns[0]]
    for number, texts in enumerate(columns):
        plain = [plain_text(text, max_tokens) for text in texts]
        for row, encoding in zip(rows, tokenizer.encode_batch_fast(plain), strict=True):
            if number:
                row.append(BETWEEN)
            row.extend(token + FIRST for token in encoding.ids)
    kept = [_ends(row, max_tokens) for row in rows]
    lengths = np.array([len(row) for row in kept], dtype=np.int64)
    return np.array([token for row in kept for token in row], dtype=np.int32), lengths


def plain_text(text: str | None, max_tokens: int) -> str:
    """The characters of a text that are read, as the tokenizer wants them."""
    limit = _CHARS_PER_TOKEN * max_tokens
    if text and len(text) > limit:
        text = text[: limit // 2] + text[len(text) - limit // 2 :]
    # Here and not in the tokenizer, whose own normalisers take twice the time of all the rest.
    return unicodedata.normalize("NFC", text or "").lower()


def _ends(row: list[int], limit: int) -> list[int]:
    """The first half and the last of what may be kept."""
    if len(row) <= limit:
        return row
    head = limit - limit // 2
    return row[:head] + row[len(row) - limit // 2 :]
