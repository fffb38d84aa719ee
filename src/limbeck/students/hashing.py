"""Hashed word and character n-grams of a batch of texts, in numpy alone.

Nothing but numpy is imported here, because an exported student carries this file word for word
in its `example.py`. The definition, row by row:

1. The text is cut after `max_chars` characters and lower-cased with `str.lower`.
2. A character is a space, a mark or a letter. ASCII letters, digits, the apostrophe and all
   characters from U+00C0 on are letters, apart from the punctuation blocks in `_SPACES` and
   `_MARKS`. A word is a longest run of letters, or a single mark: so `good!` is two words, and
   each Chinese or Japanese character is a word of its own.
3. The features are all runs of 1 to `word_ngrams` words, then all runs of `char_min` to `char_max`
   characters of `<word>`, where `<` and `>` are one mark that no text contains. A run of
   characters stays inside one word, and the bare mark on both sides counts as its first and last
   character.
4. A feature's bucket is a hash in [1, buckets); 0 is left free for padding.

A text without words has no features. The hash is a polynomial over code points modulo 2**64, so
the hash of any run is a difference of two prefix sums and a whole batch costs a few passes.

Source: feature hashing is Weinberger et al., "Feature Hashing for Large Scale Multitask
Learning", ICML 2009; rolling polynomial hashes are Karp and Rabin, "Efficient randomized
pattern-matching algorithms", IBM J. Res. Dev. 31 (1987).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_SPACES = ((0x0000, 0x0021), (0x007F, 0x00A1), (0x2000, 0x2010), (0x2028, 0x2030), (0x3000, 0x3001))
_MARKS = (
    *((0x0021, 0x0027), (0x0028, 0x0030), (0x003A, 0x0041), (0x005B, 0x0061), (0x007B, 0x007F)),
    *((0x00A1, 0x00C0), (0x2010, 0x2019), (0x201A, 0x2028), (0x2030, 0x2C00), (0x3001, 0x3100)),
    *((0x3400, 0xA000), (0xF900, 0xFB00), (0xFE00, 0xFE70), (0xFF00, 0xFF10)),
)
_LETTER, _MARK = 1, 2
_BORDER = 0x110000  # one past the last code point
_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2**64
_INVERSE = pow(_BASE, -1, 2**64)
_MIX = np.uint64(0xD6E8FEB86659FD93)
_WORD_SALT = np.uint64(0x2545F4914F6CDD1D)
_CHAR_SALT = np.uint64(0x5851F42D4C957F2D)


def _character_classes() -> NDArray[np.uint8]:
    """Class of each code point below 0xFFFF; the last entry stands for all others."""
    classes = np.full(0x10000, _LETTER, dtype=np.uint8)
    for first, stop in _SPACES:
        classes[first:stop] = 0
    for first, stop in _MARKS:
        classes[first:stop] = _MARK
    classes[0xFFFF] = _MARK
    return classes


_CLASSES = _character_classes()


def hash_texts(
    texts: Sequence[str],
    *,
    buckets: int,
    word_ngrams: int,
    char_min: int,
    char_max: int,
    max_chars: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Hash the word and character n-grams of n texts.

    Args:
        texts: n strings; any Unicode, lone surrogates too.
        buckets: Buckets with the padding, >= 2; ids lie in [1, buckets).
        word_ngrams: Longest run of words, >= 1.
        char_min: Shortest run of characters, >= 2, with the borders counted.
        char_max: Longest run of characters; 0 turns characters off.
        max_chars: Characters of a text that are read; the rest is ignored.

    Returns:
        (ids, lengths): all rows' ids one row after the other, int64, shape (N,), and the ids of
        each row, int64, shape (n,). A row's ids depend on its text alone.

    Cost: O(characters (1 + char_max - char_min)) time; about 100 bytes a character of memory.
    """
    codes, start, stop, row = _words(texts, max_chars)
    if not len(start):
        return np.empty(0, dtype=np.int64), np.zeros(len(texts), dtype=np.int64)
    prefix, inverse = _prefix_hashes(codes)
    hashes, rows = [], []
    for n in range(1, word_ngrams + 1):
        first = np.arange(max(len(start) - n + 1, 0))
        first = first[row[first] == row[first + n - 1]]
        begin = start[first]
        hashes.append((prefix[stop[first + n - 1]] - prefix[begin]) * inverse[begin] ^ _WORD_SALT)
        rows.append(row[first])
    if char_max:
        span = stop - start + 1
        # Characters left in the word from each position on, the borders on both sides included.
        left = np.repeat(stop + 1, span) - np.arange(len(codes) - 1)
        row = np.repeat(row, span)
    for n in range(char_min, char_max + 1):
        begin = np.flatnonzero(left >= n)
        hashes.append((prefix[begin + n] - prefix[begin]) * inverse[begin] ^ _CHAR_SALT)
        rows.append(row[begin])
    return _group_by_row(hashes, rows, len(texts), buckets)


def _words(
    texts: Sequence[str], max_chars: int
) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Lay all words side by side, with one border before, between and after them.

    Returns:
        (codes, start, stop, row): code points uint64; first and one-past-last position, and the
        text, of each word, int64.
    """
    lowered = [text[:max_chars].lower() for text in texts]
    raw = np.frombuffer(" ".join(lowered).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    kinds = _CLASSES[np.minimum(raw, 0xFFFF)]
    starts = kinds == _MARK
    starts[:1] |= kinds[:1] == _LETTER
    starts[1:] |= (kinds[1:] == _LETTER) & (kinds[:-1] != _LETTER)

    kept = np.flatnonzero(kinds)
    first = starts[kept]
    place = np.arange(len(kept)) + np.cumsum(first)
    start = place[first]
    codes = np.full(len(kept) + len(start) + 1, _BORDER, dtype=np.uint64)
    codes[place] = raw[kept]
    stop = np.append(start[1:] - 1, len(codes) - 1)
    # Texts are joined by one space, so that row i of them ends at ends[i].
    ends = np.cumsum([len(text) + 1 for text in lowered], dtype=np.int64)
    words = np.diff(np.searchsorted(kept[first], ends), prepend=0)
    return codes, start, stop, np.repeat(np.arange(len(texts)), words)


def _prefix_hashes(codes: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Give H[j], the sum of (code_i + 1) BASE**i over i < j, and BASE**-j.

    The run from i to j has the hash (H[j] - H[i]) BASE**-i wherever it stands.
    """
    powers = np.full(len(codes), _BASE, dtype=np.uint64)
    inverse = np.full(len(codes), _INVERSE, dtype=np.uint64)
    powers[0] = inverse[0] = 1
    np.cumprod(powers, out=powers)
    np.cumprod(inverse, out=inverse)
    prefix = np.zeros(len(codes) + 1, dtype=np.uint64)
    np.cumsum((codes + np.uint64(1)) * powers, out=prefix[1:])
    return prefix, inverse


def _group_by_row(
    hashes: list[NDArray[np.uint64]], rows: list[NDArray[np.int64]], n: int, buckets: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Put the buckets of each row together: within a row, in the order of `hashes`."""
    counts = np.stack([np.bincount(row, minlength=n) for row in rows])
    lengths = counts.sum(axis=0)
    before = np.cumsum(lengths) - lengths + np.cumsum(counts, axis=0) - counts
    ids = np.empty(int(lengths.sum()), dtype=np.int64)
    for spans, row, count, offset in zip(hashes, rows, counts, before, strict=True):
        mixed = (spans ^ (spans >> np.uint64(32))) * _MIX
        bucket = ((mixed >> np.uint64(32)) * np.uint64(buckets - 1)) >> np.uint64(32)
        place = np.arange(len(row)) + np.repeat(offset - np.cumsum(count) + count, count)
        ids[place] = bucket.astype(np.int64) + 1
    return ids, lengths
