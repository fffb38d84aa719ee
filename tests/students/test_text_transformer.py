"""Oracles: attention as loops, a task that only word order solves, a folder tampered with."""

import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.nn import functional as F

from limbeck.data.schema import Schema
from limbeck.errors import ConfigError, StudentError
from limbeck.students import (
    TextTransformerConfig,
    TextTransformerEncoder,
    build,
    load,
    pad_rows,
    save,
    seal,
)
from limbeck.students.sampling import spaced
from limbeck.students.subwords import train_tokenizer
from limbeck.students.tokens import BETWEEN, FIRST, START, plain_text

SCHEMA = Schema(text=("text",), numeric=(), category=(), label=None, classes=("no", "yes"))
SMALL = {"dim": 16, "heads": 2, "layers": 2, "max_tokens": 12}
TEXTS = ["the film was good", "", "a bad joke, badly told", "word " * 40, "ÀÉ 中文 😀"]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def batch(texts, **more):
    columns = {"text": texts, **more}
    return pa.RecordBatch.from_pydict(
        {k: pa.array(v, pa.large_string()) for k, v in columns.items()}
    )


def make(settings=None, texts=TEXTS, seed=0):
    return build(
        "text_transformer", {**SMALL, **(settings or {})}, SCHEMA, [batch(texts)], 2, seeded(seed)
    )


def rows_of(ragged):
    return [part.tolist() for part in np.split(ragged.values, np.cumsum(ragged.lengths)[:-1])]


def embed_by_loops(module, ids):
    """One row, token by token and head by head, straight from the equations."""
    x = [module.table[t] + module.positions[i] for i, t in enumerate(ids)]
    dim, heads = module.embedding_dim, module.heads
    size = dim // heads
    for block in module.blocks:
        made = [block.query_key_value(block.attention_norm(v)) for v in x]
        found = []
        for i in range(len(x)):
            parts = []
            for h in range(heads):
                q, k, v = (slice(n * dim + h * size, n * dim + (h + 1) * size) for n in range(3))
                scores = torch.stack([made[i][q] @ made[j][k] / size**0.5 for j in range(len(x))])
                weights = scores.exp() / scores.exp().sum()
                parts.append(sum(w * made[j][v] for j, w in enumerate(weights)))
            found.append(torch.cat(parts))
        x = [v + block.out(o) for v, o in zip(x, found, strict=True)]
        x = [v + block.down(F.gelu(block.up(block.hidden_norm(v)))) for v in x]
    return sum(module.norm(v) for v in x) / len(x)


def test_the_embedding_is_the_loop_over_tokens_heads_and_blocks():
    student = make()
    module = student.module.eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.empty_like(parameter).normal_(std=0.3, generator=seeded(1)))
    rows = student.encoder.encode(batch(TEXTS))
    expected = torch.stack([embed_by_loops(module, row) for row in rows_of(rows)])
    torch.testing.assert_close(module.embed(student.encoder.collate(rows)), expected)
    padded = torch.from_numpy(np.pad(pad_rows(rows), ((0, 0), (0, 5))))[:, : SMALL["max_tokens"]]
    torch.testing.assert_close(module.embed_padded(padded), expected)


def test_the_gradient_of_packed_rows_is_that_of_padded_ones():
    student = make({"dropout": 0.0})
    rows = student.encoder.encode(batch(TEXTS))
    found = []
    for embed, given in (
        (student.module.embed, student.encoder.collate(rows)),
        (student.module.embed_padded, torch.from_numpy(pad_rows(rows))),
    ):
        student.module.zero_grad()
        embed(given).sin().sum().backward()
        found.append([p.grad.clone() for p in student.module.parameters() if p.grad is not None])
    torch.testing.assert_close(found[0], found[1])


def test_word_order_solves_what_a_bag_of_words_cannot():
    texts = ["cat bites dog", "dog bites cat"] * 16
    labels = torch.tensor([1, 0] * 16)
    student = make({"dropout": 0.0}, texts)
    optimiser = torch.optim.AdamW(student.module.parameters(), lr=0.01)
    rows = student.encoder.encode(batch(texts))
    first, second = rows_of(rows)[:2]
    assert sorted(first) == sorted(second)
    inputs = student.encoder.collate(rows)
    for _ in range(60):
        optimiser.zero_grad()
        F.cross_entropy(student.module(inputs).outputs, labels).backward()
        optimiser.step()
    assert torch.equal(student.module(inputs).outputs.argmax(1), labels)


def test_every_text_is_encoded_and_none_can_write_a_mark():
    encoder = make({"max_tokens": 200}).encoder
    texts = ["never seen ☃ \x00 ﷽", "<pad> [SEP]", " \n\t ", *TEXTS]
    rows = rows_of(encoder.encode(batch(texts)))
    for text, row in zip(texts, rows, strict=True):
        assert row[0] == START
        assert all(FIRST <= token < encoder.vocabulary for token in row[1:])
        said = encoder.tokenizer.decode([token - FIRST for token in row[1:]])
        assert said.removeprefix(" ") == plain_text(text, 200).removeprefix(" ")


def test_columns_are_told_apart_and_long_rows_keep_both_ends():
    schema = Schema(("text", "title"), (), (), None, ("no", "yes"))
    rows = batch(["aa", None], title=["bb", "b" * 300])
    settings = TextTransformerConfig(max_tokens=9)
    encoder = TextTransformerEncoder.fit([rows], schema, settings)
    first, second = rows_of(encoder.encode(rows))
    mine = rows_of(encoder.encode(batch(["aa"], title=[None])))[0]
    theirs = rows_of(encoder.encode(batch([""], title=["bb"])))[0]
    assert mine[0] == theirs[0] == START
    assert mine[-1] == theirs[1] == BETWEEN
    assert first == [*mine, *theirs[2:]]
    long = encoder.tokenizer.encode(plain_text("b" * 300, 9)).ids
    whole = [START, BETWEEN, *(token + FIRST for token in long)]
    assert second == (whole if len(whole) <= 9 else whole[:5] + whole[-4:])
    assert plain_text("x" * 50 + "y" * 50, 3) == "x" * 9 + "y" * 9


@pytest.mark.slow
def test_the_same_rows_give_the_same_tokenizer_in_another_process_and_in_other_batches():
    texts = [f"{a} {b} 中{a}" for a in ("good", "bad", "dull") for b in TEXTS]
    code = (
        "import json, sys; from limbeck.students.subwords import train_tokenizer; "
        "sys.stdout.write(train_tokenizer(([t] for t in json.loads(sys.argv[1])), 300).to_str())"
    )
    command = [sys.executable, "-c", code, json.dumps([plain_text(t, 128) for t in texts])]
    there = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert there == train_tokenizer(([plain_text(t, 128)] for t in texts), 300).to_str()
    config = TextTransformerConfig(vocab=303)
    one = TextTransformerEncoder.fit([batch(texts)], SCHEMA, config)
    many = TextTransformerEncoder.fit([batch([t]) for t in texts], SCHEMA, config)
    assert one.files() == many.files() == {"tokenizer.json": there.encode()}


@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 16, 17, 1000])
def test_the_sample_is_every_2_to_the_kth_row(n):
    strides = [2**k for k in range(12)]
    stride = next(s for s in strides if len(range(0, n, s)) <= 8)
    rows = [[str(i)] for i in range(n)]
    assert spaced(iter(rows), 8, list) == rows[::stride]


def test_the_default_student_is_under_five_megabytes():
    config = TextTransformerConfig()
    encoder = make(texts=TEXTS).encoder
    student = build("text_transformer", {}, SCHEMA, [batch(TEXTS)], 10, seeded())
    bytes_ = 4 * sum(p.numel() for p in student.module.parameters())
    bytes_ += 4 * config.dim * (config.vocab - student.encoder.vocabulary)  # a full vocabulary
    assert bytes_ < 5e6
    assert encoder.vocabulary < config.vocab
    assert encoder.dtype == np.uint16
    large = TextTransformerConfig(vocab=2**17, dim=4)
    assert TextTransformerEncoder(("text",), large, encoder.tokenizer).dtype == np.int32


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"vocab": 258}, r"vocab=258: .* \[259"), ({"dim": 30, "heads": 4}, "give a multiple"),
     ({"heads": 0}, "heads=0"), ({"layers": 0}, "layers=0"), ({"max_tokens": 1}, "max_tokens=1"),
     ({"hidden_multiple": 0}, "hidden_multiple=0"), ({"dropout": 1.0}, "turns dropout off"),
     ({"dim": 2, "heads": 4}, r"dim=2: .* \[4")],
)  # fmt: skip
def test_bad_settings_are_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        TextTransformerConfig(**settings)


def test_no_text_column_is_refused():
    numbers = Schema((), ("x",), (), None, ("no", "yes"))
    with pytest.raises(ConfigError, match="reads text columns but the schema has none"):
        TextTransformerEncoder.fit([], numbers, TextTransformerConfig())
    with pytest.raises(ConfigError, match="needs a TextTransformerConfig, got int"):
        TextTransformerEncoder.fit([], SCHEMA, 3)


@pytest.fixture
def folder(tmp_path):
    save(make(), tmp_path)
    return tmp_path


def test_a_tampered_or_missing_tokenizer_is_named(folder):
    path = folder / "tokenizer.json"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b" ")
    with pytest.raises(StudentError, match=r"tokenizer\.json was changed"):
        load(folder)
    path.unlink()
    with pytest.raises(StudentError, match=r"tokenizer\.json is missing"):
        load(folder)


@pytest.mark.parametrize("rehashed", [False, True])
@pytest.mark.parametrize("data", [b"{", b"\xff\xfe", b'{"model": {"type": "No\\nsuch"}}', b""])
def test_a_broken_tokenizer_in_a_sealed_folder_gives_one_sentence(folder, data, rehashed):
    import hashlib

    (folder / "tokenizer.json").write_bytes(data)
    if rehashed:
        config = json.loads((folder / "config.json").read_text())
        config["encoder"]["tokenizer"] = hashlib.sha256(data).hexdigest()
        (folder / "config.json").write_text(json.dumps(config))
    seal(folder)
    words = "tokenizer.json cannot be read" if rehashed else "not the one that this student"
    with pytest.raises(StudentError, match=words) as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_folder_whose_list_forgets_the_tokenizer_is_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "files": []}))
    seal(folder)
    with pytest.raises(StudentError, match=r"tokenizer\.json is missing, without which"):
        load(folder)
