"""`limbeck select`: a file of scores in, a batch out, and a memory between rounds."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest
import torch

from limbeck.cli import run
from limbeck.errors import ConfigError, DataError
from limbeck.select import SELECTORS, AdaProd, Arrays, Rad, gains
from limbeck.select.run import SelectConfig, choose

N = 30


def probabilities(seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.softmax(2 * torch.randn(N, 3, generator=g), dim=1)


def columns(seed=0, *, bought=(), ids=True):
    probs = probabilities(seed)
    table = {f"prob_{name}": probs[:, i].numpy() for i, name in enumerate("abc")}
    table["bought"] = [i in bought for i in range(N)]
    embedding = np.random.default_rng(7).normal(size=(N, 4)).astype(np.float32)
    table["embedding"] = pa.array(list(embedding), pa.list_(pa.float32()))
    table["teacher_error"] = np.random.default_rng(8).uniform(0, 0.4, N)
    if ids:
        table["id"] = [f"row {i}" for i in range(N)]
    return pa.table(table)


@pytest.fixture
def scores(tmp_path):
    path = tmp_path / "scores.parquet"
    pq.write_table(columns(bought=(3, 4)), path)
    return path


def selected(capsys, *words):
    code = run(["select", *map(str, words)])
    return code, capsys.readouterr()


@pytest.mark.parametrize("rule", SELECTORS)
def test_every_rule_chooses_from_a_file(scores, rule):
    error = 0.2 if rule == "rad" else None
    chosen = choose(SelectConfig(scores=scores, k=6, rule=rule, teacher_error=error))
    rows = chosen.selection.rows.tolist()
    assert len(set(rows)) == 6
    assert not {3, 4} & set(rows)
    assert chosen.candidates == N - 2
    table = chosen.table()
    assert table.column("id").to_pylist() == [f"row {i}" for i in rows]
    if chosen.gains is not None:
        expected = gains(probabilities()[chosen.selection.rows])
        torch.testing.assert_close(chosen.gains, expected)


def test_it_is_the_rule_in_python_on_the_same_numbers(scores):
    rows = torch.tensor([i for i in range(N) if i not in (3, 4)])
    candidates = Arrays(rows, probabilities()[rows], pool_size=N, teacher_error=0.2)
    expected = Rad().select(candidates, 6, torch.Generator().manual_seed(5))
    chosen = choose(SelectConfig(scores=scores, k=6, teacher_error=0.2, seed=5))
    assert torch.equal(chosen.selection.rows, expected.rows)
    assert torch.equal(chosen.selection.inclusion_probs, expected.inclusion_probs)


def test_forms_of_the_file_give_the_same_batch(tmp_path, scores):
    expected = choose(SelectConfig(scores=scores, k=5, rule="greedy")).selection.rows
    probs = probabilities()
    listed = pa.table(
        {"probs": pa.array(probs.tolist()), "bought": [i in (3, 4) for i in range(N)]}
    )
    pq.write_table(listed, tmp_path / "listed.parquet")
    gained = pa.table(
        {"gain": gains(probs).numpy(), "bought": [int(i in (3, 4)) for i in range(N)]}
    )
    pc.write_csv(gained, tmp_path / "gained.csv")
    lines = [
        json.dumps({"probs0": p[0], "probs1": p[1], "probs2": p[2], "bought": i in (3, 4)})
        for i, p in enumerate(probs.tolist())
    ]
    (tmp_path / "numbered.jsonl").write_text("\n".join(lines))
    for name in ("listed.parquet", "gained.csv", "numbered.jsonl"):
        found = choose(SelectConfig(scores=tmp_path / name, k=5, rule="greedy")).selection.rows
        assert torch.equal(found, expected), name


def test_a_memory_makes_rounds_of_files_the_rounds_of_the_rule(tmp_path):
    rule, bought, memory = AdaProd(), [], tmp_path / "memory.safetensors"
    last = torch.zeros(0, dtype=torch.int64)
    for turn in range(3):
        path = tmp_path / f"round{turn}.parquet"
        pq.write_table(columns(turn, bought=bought), path)
        rows = torch.tensor([i for i in range(N) if i not in bought])
        if turn:
            rule.observe(last, gains(probabilities(turn)[last]))
        candidates = Arrays(rows, probabilities(turn)[rows], pool_size=N)
        expected = rule.select(candidates, 4, torch.Generator().manual_seed(turn))
        config = SelectConfig(scores=path, k=4, rule="adaprod", memory=memory, seed=turn)
        found = choose(config).selection
        # The same question again is the same batch, and no new round.
        again = choose(config).selection
        for batch in (found, again):
            assert torch.equal(batch.rows, expected.rows)
            torch.testing.assert_close(batch.inclusion_probs, expected.inclusion_probs)
        bought, last = [*bought, *found.rows.tolist()], rows


def test_a_column_of_errors_is_what_expected_gain_and_rad_go_by(scores):
    rows = torch.tensor([i for i in range(N) if i not in (3, 4)])
    errors = torch.from_numpy(np.random.default_rng(8).uniform(0, 0.4, N)).float()[rows]
    expected = gains(probabilities()[rows]).double() * (1 - errors.double())
    found = choose(SelectConfig(scores=scores, k=6, rule="expected_gain")).selection.rows
    assert set(found.tolist()) == set(rows[expected.topk(6).indices].tolist())
    by_column = choose(SelectConfig(scores=scores, k=6)).selection
    mean = float(errors.double().mean())
    by_option = choose(SelectConfig(scores=scores, k=6, teacher_error=mean)).selection
    assert torch.equal(by_column.inclusion_probs, by_option.inclusion_probs)


def test_the_command_writes_a_file_or_the_screen(capsys, tmp_path, scores):
    out = tmp_path / "chosen.csv"
    code, said = selected(capsys, scores, "--k", 4, "--teacher-error", 0.2, "--out", out, "--json")
    assert code == 0
    assert json.loads(said.out) == {"out": str(out), "rows": 4, "candidates": 28, "rule": "rad"}
    table = pc.read_csv(out)
    assert table.column_names == ["row", "id", "inclusion_probability", "gain"]
    code, said = selected(capsys, scores, "--k", 4, "--teacher-error", 0.2)
    assert code == 0
    assert said.out == out.read_text()


def test_what_cannot_be_chosen_from_is_refused_with_one_sentence(capsys, tmp_path, scores):
    only = tmp_path / "gains.csv"
    only.write_text("gain,bought\n0.5,false\n0.7,maybe\n")
    high = tmp_path / "high.csv"
    high.write_text("gain\n0.5\n1.7\n")
    gained = tmp_path / "gained.csv"
    gained.write_text("gain\n0.5\n0.7\n")
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("gain,teacher_error\n0.5,2\n0.7,1\n")
    none = tmp_path / "none.csv"
    none.write_text("text\nhello\n")
    broken = tmp_path / "memory.safetensors"
    broken.write_text("no memory")
    for words, told in (
        ((gained, "--k", 1), "teacher's error"),
        ((gained, "--k", 1, "--rule", "expected_gain"), "at each row"),
        ((wrong, "--k", 1), "teacher's error"),
        ((scores, "--k", -3), "k=-3"),
        ((scores, "--k", 3, "--rule", "radd"), "did you mean 'rad'"),
        ((scores, "--k", 3, "--measure", "mood"), "measure='mood'"),
        ((scores, "--k", 3, "--teacher-error", 3), "teacher-error=3.0"),
        ((scores, "--k", 3, "--rule", "uniform", "--out", "x.txt"), ".csv, .jsonl, .parquet"),
        ((only, "--k", 1, "--rule", "greedy"), "'maybe'"),
        ((high, "--k", 1, "--rule", "greedy"), "[0, 1]"),
        ((high, "--k", 1, "--rule", "badge"), "class probabilities"),
        ((high, "--k", 1, "--rule", "greedy", "--measure", "margin"), "gains only"),
        ((high, "--k", 1, "--rule", "coreset"), "embeddings"),
        ((none, "--k", 1), "has no scores"),
        ((scores, "--k", 1, "--rule", "uniform", "--memory", broken), "no memory of"),
    ):
        code, said = selected(capsys, *words)
        assert code == 2, words
        assert told in said.err, (words, said.err)
        assert len(said.err.strip().splitlines()) == 1


def test_a_memory_of_another_rule_or_pool_is_refused(tmp_path, scores):
    memory = tmp_path / "memory.safetensors"
    choose(SelectConfig(scores=scores, k=3, rule="adaprod", memory=memory))
    with pytest.raises(ConfigError, match="remembers 'adaprod' on 30 rows"):
        choose(SelectConfig(scores=scores, k=3, rule="uniform", memory=memory))
    other = tmp_path / "other.parquet"
    pq.write_table(columns().slice(0, 20), other)
    with pytest.raises(ConfigError, match="on 20"):
        choose(SelectConfig(scores=other, k=3, rule="adaprod", memory=memory))


def test_lists_of_different_lengths_are_refused(tmp_path):
    path = tmp_path / "ragged.parquet"
    pq.write_table(pa.table({"probs": [[0.5, 0.5], [1.0]]}), path)
    with pytest.raises(DataError, match="as many numbers in every row"):
        choose(SelectConfig(scores=path, k=1, rule="uniform"))
