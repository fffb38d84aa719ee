"""Real data sets, how they are cut, and features of them that no label has touched."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from benchmarks._common import RESULTS
from benchmarks.distill._shared import data_folder
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from limbeck.select import average_linkage

Floats = NDArray[np.float32]
PATCH, CENTROIDS, PATCHES, CLUSTERS = 6, 200, 50_000, 192


@dataclass(frozen=True, slots=True)
class Source:
    """A data set and how it is cut.

    Args:
        path: Below LIMBECK_DATA.
        train, test: Rows of the official splits that are used, the first ones.
        width: Features that are kept.
        teachers: Labelled rows that each teacher is trained on.
    """

    path: str
    train: int
    test: int
    width: int
    teachers: dict[str, int]
    labelled: int = 100
    validation: int = 300
    pool: int = 8_000


SOURCES = {
    "imdb": Source("text/imdb", 20_000, 3_000, 128, {"strong": 10_000, "weak": 250}),
    "yelp": Source("text/yelp_sent", 20_000, 3_000, 128, {"strong": 10_000, "weak": 400}),
    "mnist": Source("images/mnist.npz", 20_000, 3_000, 64, {"strong": 5_000, "weak": 300}),
    "cifar10": Source(
        "images/cifar10_jpeg.npz", 15_000, 3_000, 128, {"strong": 6_500, "weak": 1_000}
    ),
}
TEXTS, IMAGES = ("imdb", "yelp"), ("mnist", "cifar10")


@cache
def features(name: str) -> tuple[Floats, NDArray[np.int64], Floats, NDArray[np.int64]]:
    """Features and labels of train and test rows; made once, without labels, and kept."""
    path = RESULTS / ".partial" / f"rules_real_{name}.npz"
    if not path.exists():
        source = SOURCES[name]
        make = _of_texts if name in TEXTS else _of_pixels if name == "mnist" else _of_patches
        x, y, x_test, y_test = make(source)
        centre, spread = x.mean(axis=0), x.std()
        x, x_test = ((part - centre) / spread for part in (x, x_test))
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, x=x.astype(np.float32), y=y, x_test=x_test.astype(np.float32), y_test=y_test)
    with np.load(path) as kept:
        return kept["x"], kept["y"], kept["x_test"], kept["y_test"]


@cache
def clusters(name: str) -> Tensor:
    """Average-linkage clusters of the train rows' features; made once and kept."""
    path = RESULTS / ".partial" / f"rules_real_{name}_clusters.npy"
    if not path.exists():
        np.save(path, average_linkage(torch.from_numpy(features(name)[0]), CLUSTERS).numpy())
    return torch.from_numpy(np.load(path))


def _of_texts(source: Source) -> tuple[NDArray[np.float64], ...]:
    """Hashed TF-IDF of words and pairs of words, and its largest singular directions."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
    from sklearn.pipeline import make_pipeline

    folder = data_folder() / source.path
    texts_test, y_test = _read_texts(folder / "test.parquet")
    texts, y = _read_texts(folder / "train.parquet")
    shared = set(texts_test)
    own = sorted({text: i for i, text in enumerate(texts) if text not in shared}.values())
    rng = np.random.default_rng(0)
    at = rng.permutation(own)[: source.train]
    at_test = rng.permutation(len(texts_test))[: source.test]
    pipeline = make_pipeline(
        HashingVectorizer(n_features=2**17, ngram_range=(1, 2), alternate_sign=False, norm=None),
        TfidfTransformer(sublinear_tf=True),
        TruncatedSVD(source.width, n_iter=3, random_state=0),
    )
    x, x_test = pipeline.fit_transform(texts[at]), pipeline.transform(texts_test[at_test])
    return x, y[at], x_test, y_test[at_test]


def _read_texts(path: Path) -> tuple[NDArray[np.object_], NDArray[np.int64]]:
    table = pq.read_table(path)
    labels = table.column("label").to_numpy().astype(np.int64)
    return np.array(table.column("text").to_pylist(), dtype=object), labels


def _images(source: Source) -> tuple[Floats, NDArray[np.int64], Floats, NDArray[np.int64]]:
    with np.load(data_folder() / source.path) as arrays:
        x, y = arrays["x_train"][: source.train], arrays["y_train"][: source.train]
        x_test, y_test = arrays["x_test"][: source.test], arrays["y_test"][: source.test]
    return x.astype(np.float32) / 255, y, x_test.astype(np.float32) / 255, y_test


def _of_pixels(source: Source) -> tuple[NDArray[np.float64], ...]:
    """Principal components of the pixels."""
    x, y, x_test, y_test = _images(source)
    x, x_test = _components(x.reshape(len(x), -1), x_test.reshape(len(x_test), -1), source.width)
    return x, y, x_test, y_test


def _of_patches(source: Source) -> tuple[NDArray[np.float64], ...]:
    """How near patches are to centroids of whitened patches, summed over quadrants.

    Source: Coates, Ng, Lee, "An analysis of single-layer networks in unsupervised feature
    learning", AISTATS 2011 ("triangle" activation).
    """
    x, y, x_test, y_test = _images(source)
    encode = _patch_encoder(x)
    x, x_test = encode(x), encode(x_test)
    spread = x.std(axis=0) + 1e-3
    x, x_test = _components(x / spread, x_test / spread, source.width)
    return x, y, x_test, y_test


def _components(x: Floats, x_test: Floats, width: int) -> tuple[Floats, Floats]:
    centre = x.mean(axis=0)
    _, vectors = np.linalg.eigh(np.cov((x - centre).T))
    kept = vectors[:, ::-1][:, :width]
    return (x - centre) @ kept, (x_test - centre) @ kept


def _patch_encoder(x: Floats) -> Callable[[Floats], Floats]:
    from sklearn.cluster import MiniBatchKMeans

    rng = np.random.default_rng(0)
    some = _patches(x[rng.permutation(len(x))[: PATCHES // 20]]).flatten(0, 1)
    some = some[torch.from_numpy(rng.permutation(len(some))[:PATCHES])]
    centre = some.mean(0)
    values, vectors = torch.linalg.eigh((some - centre).T.cov())
    whiten = vectors @ torch.diag((values + 0.1).rsqrt()) @ vectors.T
    means = MiniBatchKMeans(CENTROIDS, random_state=0, n_init=1).fit((some - centre) @ whiten)
    centroids = torch.from_numpy(means.cluster_centers_).float()

    def encode(images: Floats) -> Floats:
        parts = []
        for start in range(0, len(images), 50):
            patches = (_patches(images[start : start + 50]) - centre) @ whiten
            distance = torch.cdist(patches, centroids[None])
            near = functional.relu(distance.mean(dim=2, keepdim=True) - distance)
            side = round(near.shape[1] ** 0.5)
            grid = near.transpose(1, 2).reshape(len(near), CENTROIDS, side, side)
            parts.append(functional.adaptive_avg_pool2d(grid, 2).flatten(1))
        return torch.cat(parts).numpy()

    return encode


def _patches(images: Floats) -> Tensor:
    """Patches of images (B, H, W, 3), each with mean 0 and about unit spread: (B, P, d)."""
    x = torch.from_numpy(images).permute(0, 3, 1, 2)
    patches = functional.unfold(x, PATCH).transpose(1, 2)
    patches = patches - patches.mean(dim=2, keepdim=True)
    return patches / (patches.var(dim=2, keepdim=True) + 10 / 255**2).sqrt()
