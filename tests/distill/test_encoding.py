"""Every row is encoded before the first answer is bought, and only once."""

from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from limbeck.cli import run as run_command
from limbeck.data import pixels
from limbeck.distill import buying
from limbeck.distill.encoding import TRIED_ROWS
from limbeck.distill.plan import make_plan
from limbeck.distill.run import distill
from limbeck.distill.run_file import load_config
from limbeck.errors import DataError
from limbeck.students import TabularEncoder, text_transformer
from tests.distill import material

NETWORK = """
import torch
from torch import nn


def encode(rows):
    if any(r["a"] == {poison!r} for r in rows):
        raise ValueError("too odd")
    return torch.tensor([[r["a"], r["b"]] for r in rows]).float()


def build(outputs):
    return nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, outputs)), encode
"""


class Stop(Exception):
    """The moment at which a run is stopped."""


def buy_only(config):
    """Run until the last answer is bought."""

    def listen(event):
        if event.stage == "trust":
            raise Stop

    with pytest.raises(Stop):
        distill(config, listen)


def poisoned(folder, row, *, budget, pool):
    """The small task with a network whose `encode` raises on one row of the pool."""
    made = material.make(folder, budget=budget, pool=pool)
    values = (folder / "pool.csv").read_text().splitlines()[1 + row].split(",")
    module = f"poisoned_{abs(hash(str(folder)))}"
    (folder / f"{module}.py").write_text(NETWORK.format(poison=float(values[0])))
    made.run_file.write_text(
        made.run_file.read_text().replace(
            "[student.settings]\nhidden = 8",
            f'[student]\nkind = "factory"\n[student.settings]\nfactory = "{module}:build"',
        )
    )
    return made


@pytest.mark.slow
def test_a_row_far_down_the_pool_that_cannot_be_encoded_costs_nothing(tmp_path, capsys):
    made = poisoned(tmp_path, 5_000, budget=6_000, pool=6_000)
    assert run_command(["distill", str(made.run_file), "--yes"]) == 2
    lines = capsys.readouterr().err.splitlines()
    (said,) = [line for line in lines if line.startswith("limbeck: ")]
    assert "stopped before any purchase: pool row 5,000 (a " in said
    assert "raised ValueError: too odd" in said
    assert made.questions() == []


def test_the_row_can_be_repaired_and_the_same_command_goes_on(tmp_path):
    made = poisoned(tmp_path, 80, budget=150, pool=90)
    config = load_config(made.run_file)
    with pytest.raises(DataError, match="pool row 80"):
        distill(config)
    lines = (tmp_path / "pool.csv").read_text().splitlines()
    (tmp_path / "pool.csv").write_text("\n".join(lines[:81] + lines[82:]) + "\n")
    buy_only(config)
    assert len(made.questions()) == 150


def test_rows_that_the_budget_cannot_reach_are_not_encoded(tmp_path):
    """The budget of 75 leaves 5 for the pool; no more than 75 pool rows can ever be asked."""
    made = material.make(tmp_path, budget=75, pool=900)
    buy_only(load_config(made.run_file))
    asked = pq.read_table(tmp_path / "run/selections/pool.parquet").column("row").to_numpy()
    encoded = pq.read_table(tmp_path / "run/selections/encoded.parquet").column("row").to_numpy()
    assert (len(asked), len(encoded)) == (5, 75)
    assert set(asked) <= set(encoded)


@pytest.mark.slow
def test_an_image_that_only_the_encoder_refuses_costs_nothing(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for split, count in (("labelled", 8), ("validation", 6), ("test", 4)):
        for name in ("dark", "light"):
            home = tmp_path / split / name
            home.mkdir(parents=True)
            for i in range(count):
                low = 0 if name == "dark" else 128
                grey = rng.integers(low, low + 128, (8, 8), dtype=np.uint8)
                Image.fromarray(grey).save(home / f"{i}.png")
    (tmp_path / "pool").mkdir()
    for i in range(1_200):
        Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(
            tmp_path / f"pool/{i:04}.png"
        )
    (tmp_path / "painter.py").write_text(
        "from pathlib import Path\n\n\ndef ask(rows):\n"
        "    Path(__file__).with_name('asked.txt').write_text('asked')\n"
        "    return [[0.5, 0.5] for _ in rows]\n"
    )
    # The encoder learns the size of images from every second of these rows.
    odd = (tmp_path / "pool/1091.png").read_bytes()
    honest = pixels.decode

    def decode(data, size, channels):
        if data == odd:
            raise ValueError("it is odd")
        return honest(data, size, channels)

    monkeypatch.setattr(pixels, "decode", decode)
    config = load_config(
        None,
        [
            *("--data.labelled", str(tmp_path / "labelled")),
            *("--data.validation", str(tmp_path / "validation")),
            *("--data.test", str(tmp_path / "test"), "--data.pool", str(tmp_path / "pool")),
            *("--teacher.kind", "callable", "--teacher.function", "painter:ask"),
            *("--budget", "1300", "--code", str(tmp_path)),
            *("--out", str(tmp_path / "run"), "--ledger", str(tmp_path / "ledger.sqlite")),
        ],
    )
    with pytest.raises(DataError, match=r"pool row 1,091 \(image of .*it is odd") as caught:
        distill(config)
    assert caught.value.exit_code == 2
    assert not (tmp_path / "asked.txt").exists()


def test_a_run_that_goes_on_encodes_nothing_again(tmp_path, monkeypatch):
    made = material.make(tmp_path)
    config = load_config(made.run_file)
    buy = buying.Buyer.buy

    def stop(self, split, rows, positions):
        buy(self, split, rows, positions)
        if split == "validation":  # the ledger knows more than when rows were encoded
            raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(buying.Buyer, "buy", stop)
        with pytest.raises(Stop):
            distill(config)
    seen = []
    monkeypatch.setattr(TabularEncoder, "encode_all", lambda self, batches: seen.append(1) or ())
    buy_only(config)
    assert len(made.questions()) == 150
    assert seen == []


def test_a_raised_budget_reaches_rows_that_were_not_encoded_before(tmp_path, monkeypatch):
    made = material.make(tmp_path, budget=72, pool=200)
    config = load_config(made.run_file)

    def stop(self, split, rows, positions):
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(buying.Buyer, "buy", stop)
        with pytest.raises(Stop):
            distill(config)
    buy_only(replace(config, budget=200))
    assert len(made.questions()) == 200


def test_answers_that_another_run_buys_meanwhile_leave_the_sample_within_what_was_encoded(
    tmp_path, monkeypatch
):
    """With more known the budget would reach further down the random order than was encoded."""
    made = material.make(tmp_path, budget=75, pool=200)
    config = load_config(made.run_file)
    other = replace(config, out=tmp_path / "other", budget=250, seed=config.seed + 1)
    buy, busy = buying.Buyer.buy, []

    def meanwhile(self, split, rows, positions, **options):
        if split == "validation" and not busy:
            busy.append(1)
            buy_only(other)
        buy(self, split, rows, positions, **options)

    monkeypatch.setattr(buying.Buyer, "buy", meanwhile)
    buy_only(config)
    chosen = pq.read_table(tmp_path / "run/selections/pool.parquet")
    encoded = pq.read_table(tmp_path / "run/selections/encoded.parquet").column("row").to_numpy()
    asked = chosen.column("row").to_numpy()
    assert set(asked) == set(encoded)
    assert np.allclose(chosen.column("inclusion_probability").to_numpy(), len(asked) / 200)


@pytest.mark.slow
def test_a_plan_and_the_run_after_it_train_one_tokenizer_for_the_student_and_one_for_the_teacher(
    tmp_path, monkeypatch
):
    rng = np.random.default_rng(0)
    for split, count in (("labelled", 70), ("validation", 12), ("test", 12), ("pool", 150)):
        pairs = enumerate(rng.integers(0, 9, (count, 2)))
        rows = [f"word{a} word{b} {split}{i}" for i, (a, b) in pairs]
        lines = ["text" if split == "pool" else "text,label"]
        lines += [row if split == "pool" else f"{row},{'ab'[i % 2]}" for i, row in enumerate(rows)]
        (tmp_path / f"{split}.csv").write_text("\n".join(lines) + "\n")
    seen, honest = [], text_transformer.train_tokenizer

    def counted(texts, pieces):
        rows = list(texts)
        seen.append(len(rows))
        return honest(iter(rows), pieces)

    monkeypatch.setattr(text_transformer, "train_tokenizer", counted)
    options = [
        *("--student.kind=text_transformer", "--student.settings.dim=8"),
        *("--student.settings.heads=2", "--teacher.kind=fit", "--teacher.members=2"),
        *("--train.steps=4", "--budget=200", "--objective.arms=labels", "--objective.arms=hard_kd"),
        *(f"--out={tmp_path / 'run'}", f"--ledger={tmp_path / 'ledger.sqlite'}"),
        *(f"--data.{name}={tmp_path / name}.csv" for name in ("labelled", "validation", "test")),
        f"--data.pool={tmp_path / 'pool.csv'}",
    ]
    config = load_config(None, options)
    make_plan(config)
    buy_only(config)
    assert sorted(rows for rows in seen if rows > TRIED_ROWS) == [70, 150]
