"""Networks as a user would write them, good and bad, for the student kind `factory`."""

import numpy as np
import torch
from torch import nn

WIDTH = 12


def numbers(row):
    """A few numbers of a row with any columns."""
    text = "|".join(f"{key}={row[key]}" for key in sorted(row))
    counts = np.zeros(WIDTH, np.float32)
    for i, character in enumerate(text):
        counts[(ord(character) + i) % WIDTH] += 0.1
    return counts


class Net(nn.Module):
    """Two layers with dropout and a random number of its own."""

    def __init__(self, outputs):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(WIDTH, 8), nn.GELU(), nn.Dropout(0.3))
        self.classify = nn.Linear(8, outputs)
        with torch.no_grad():
            # Draws from every global generator there is.
            self.classify.bias.add_(float(np.random.rand()))  # noqa: NPY002

    def forward(self, x):
        return {"logits": self.classify(self.body(x))}

    def encode(self, rows):
        return torch.from_numpy(np.stack([numbers(row) for row in rows]))


def build(outputs):
    """What a user writes."""
    return Net(outputs)


def pixels(rows):
    """Fixed-shape bytes."""
    grey = [np.resize((numbers(row) * 10).astype(np.uint8), (1, 4, 4)) for row in rows]
    return torch.from_numpy(np.stack(grey))


class Picture(nn.Module):
    """Bytes in, a tensor out; a layer in a sequence is the head."""

    def __init__(self, outputs):
        super().__init__()
        self.convolution = nn.Conv2d(1, 3, 3)
        self.norm = nn.BatchNorm2d(3)
        self.rest = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.ReLU(), nn.Linear(6, outputs))

    def forward(self, x):
        return self.rest(self.norm(self.convolution(x.float() / 255)))


def picture(outputs):
    return Picture(outputs), pixels


def words(outputs):
    """Ids in, through an embedding; the network's sum over no word is 0 / 0 on a row of zeros."""

    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(64, 5)
            self.out = nn.Linear(5, outputs)

        def forward(self, ids):
            present = (ids != 0).unsqueeze(2)
            return (self.out((self.table(ids) * present).sum(1) / present.sum(1)),)

    def encode(rows):
        return np.stack([(numbers(row) * 10).astype(np.int64)[:5] % 64 for row in rows])

    return Words(), encode


def raising(outputs):
    raise RuntimeError("no such\n  layer")


def nothing(outputs):
    return 3


def no_encode(outputs):
    return nn.Linear(WIDTH, outputs)


def too_wide(outputs):
    return Net(outputs + 1)


def few_rows(outputs):
    return Net(outputs), lambda rows: torch.zeros(len(rows) // 2, WIDTH)


def doubles(outputs):
    return Net(outputs), lambda rows: torch.zeros(len(rows), WIDTH, dtype=torch.float64)


def lists(outputs):
    return Net(outputs), lambda rows: [[0.0] * WIDTH for _ in rows]


def wrong_key(outputs):
    return Net(outputs), lambda rows: torch.tensor([row["nowhere"] for row in rows])


def growing(outputs):
    return Net(outputs), lambda rows: torch.zeros(len(rows), WIDTH if len(rows) > 1 else 3)


def wrong_input(outputs):
    return Net(outputs), lambda rows: torch.zeros(len(rows), 3)


def normalised(outputs):
    class Normalised(Net):
        def forward(self, x):
            return torch.log_softmax(super().forward(x)["logits"], dim=1)

    return Normalised(outputs)


def tied(outputs):
    made = Net(outputs)
    made.again = made.body
    return made


def silent(outputs):
    class Silent(Net):
        def forward(self, x):
            return None

    return Silent(outputs)


not_a_function = 3
