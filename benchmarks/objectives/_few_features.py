"""Texts with few classes, and two views of them that no label has touched.

The teacher sees words, pairs of words and runs of characters; the student, which is to be small,
sees fewer directions of words and pairs alone. Both views are fitted on train rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from benchmarks._common import RESULTS
from benchmarks.distill._shared import data_folder
from numpy.typing import NDArray
from torch import Tensor

STUDENT_WIDTH, TEACHER_WIDTH, MOST_POOL = 64, 256, 30_000
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class Source:
    """A data set of texts.

    Args:
        folder: Below `text` in LIMBECK_DATA.
        parity: The label is the fine label modulo two.
        more: A split without labels that joins the train rows as the pool, or nothing.
    """

    folder: str
    parity: bool = False
    more: str = ""


SOURCES = {
    "clinc10 by parity": Source("clinc10", parity=True),
    "clinc10": Source("clinc10"),
    "trec6": Source("trec6"),
    "sst2": Source("sst2", more="train_phrases"),
    "sst5": Source("sst5", more="train_phrases"),
    "imdb": Source("imdb", more="unlabelled"),
    "yelp_sent": Source("yelp_sent"),
}


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Both views of the rows of a split, float32, with labels; fine labels where there are any."""

    student: Tensor
    teacher: Tensor
    labels: Tensor
    fine: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True, eq=False)
class Texts:
    """Rows by split; the pool is the train rows, and more rows without a label (-1) after them."""

    splits: dict[str, Rows] = field(default_factory=dict)

    @property
    def num_classes(self) -> int:
        """C."""
        return int(self.splits["train"].labels.max()) + 1


@cache
def texts(name: str) -> Texts:
    """Features and labels; made once and kept."""
    path = RESULTS / ".partial" / f"few_classes_{name.replace(' ', '_')}.npz"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **_made(SOURCES[name]))
    with np.load(path) as kept:
        return Texts({split: _rows(dict(kept), split) for split in (*SPLITS, "pool")})


def _rows(arrays: dict[str, NDArray[np.generic]], split: str) -> Rows:
    parts = {
        part: torch.from_numpy(arrays[f"{split}_{part}"])
        for part in ("student", "teacher", "labels", "fine")
        if f"{split}_{part}" in arrays
    }
    return Rows(**parts)


def _made(source: Source) -> dict[str, NDArray[np.generic]]:
    """Arrays named `<split>_<part>`."""
    folder = data_folder() / "text" / source.folder
    read = {split: _read(folder, split) for split in SPLITS}
    if source.parity:
        read = {
            split: (x, fine % 2, fine) for split, (x, _, fine) in read.items() if fine is not None
        }
    words, labels, fine = read["train"]
    rng = np.random.default_rng(0)
    most = (
        rng.permutation(len(words))[:MOST_POOL] if len(words) > MOST_POOL else np.arange(len(words))
    )
    read["train"] = (words[most], labels[most], None if fine is None else fine[most])
    read["pool"] = read["train"]
    if source.more:
        words, labels, _ = read["train"]
        more = _read(folder, source.more)[0]
        more = more[rng.permutation(len(more))[: MOST_POOL - len(words)]]
        unknown = np.full(len(more), -1)
        read["pool"] = (np.concatenate([words, more]), np.concatenate([labels, unknown]), None)
    made: dict[str, NDArray[np.generic]] = {}
    for view, width in (("student", STUDENT_WIDTH), ("teacher", TEACHER_WIDTH)):
        for split, x in _views(view, width, {s: found[0] for s, found in read.items()}).items():
            made[f"{split}_{view}"] = x
    for split, (_, labels, fine) in read.items():
        made[f"{split}_labels"] = labels.astype(np.int64)
        if fine is not None:
            made[f"{split}_fine"] = fine.astype(np.int64)
    return made


def _read(
    folder: Path, split: str
) -> tuple[NDArray[np.object_], NDArray[np.int64], NDArray[np.int64] | None]:
    table = pq.read_table(folder / f"{split}.parquet")
    fine = folder / f"{split}_fine.parquet"
    return (
        np.array(table.column("text").to_pylist(), dtype=object),
        table.column("label").to_numpy().astype(np.int64),
        pq.read_table(fine).column("fine").to_numpy().astype(np.int64) if fine.exists() else None,
    )


def _views(
    view: str, width: int, found: dict[str, NDArray[np.object_]]
) -> dict[str, NDArray[np.float32]]:
    """TF-IDF of n-grams and its largest singular directions, centred, with mean square 1."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
    from sklearn.pipeline import make_pipeline, make_union

    def grams(**settings: object) -> HashingVectorizer:
        return HashingVectorizer(n_features=2**17, alternate_sign=False, norm=None, **settings)

    kinds: Sequence[HashingVectorizer] = [grams(ngram_range=(1, 2), token_pattern=r"\b\w+\b")]
    if view == "teacher":
        kinds = [*kinds, grams(analyzer="char_wb", ngram_range=(3, 4))]
    pipeline = make_pipeline(
        make_union(*kinds), TfidfTransformer(sublinear_tf=True),
        TruncatedSVD(width, n_iter=3, random_state=0),
    )  # fmt: skip
    x = {"train": pipeline.fit_transform(found["train"])}
    x |= {split: pipeline.transform(rows) for split, rows in found.items() if split != "train"}
    centre, spread = x["train"].mean(axis=0), x["train"].std()
    return {split: ((part - centre) / spread).astype(np.float32) for split, part in x.items()}
