"""Oracles: the pooled sum written as a loop, and a task that only word pairs can solve."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.nn import functional as F

from limbeck.data.schema import Schema
from limbeck.errors import ConfigError, LimbeckWarning
from limbeck.students import TextBagConfig, TextBagEncoder, TextBagModule, build, pad_rows
from limbeck.students.text_bag import join_columns

SCHEMA = Schema(text=("text",), numeric=(), category=(), label=None, classes=("no", "yes"))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def batch(texts, **more):
    columns = {"text": texts, **more}
    return pa.RecordBatch.from_pydict(
        {k: pa.array(v, pa.large_string()) for k, v in columns.items()}
    )


def test_embedding_is_the_loop_over_buckets_and_the_hidden_layer():
    config = TextBagConfig(buckets=97, dim=3, hidden=5)
    encoder = TextBagEncoder(("text",), config)
    module = TextBagModule(encoder, config, 2, seeded()).eval()
    with torch.no_grad():
        module.hidden.bias.uniform_(-1, 1, generator=seeded(1))
    rows = encoder.encode(batch(["not good", "", "a"]))
    ids = np.split(rows.values.astype(int), np.cumsum(rows.lengths)[:-1])
    expected = []
    for row in ids:
        total = sum((module.table[i] for i in row), torch.zeros(3)) / max(1, len(row)) ** 0.5
        expected.append(F.relu(module.hidden.weight @ total + module.hidden.bias))
    got = module.embed(encoder.collate(rows))
    torch.testing.assert_close(got, torch.stack(expected))
    torch.testing.assert_close(module.embed_padded(torch.from_numpy(pad_rows(rows))), got)


def test_padding_stays_out_of_training():
    config = TextBagConfig(buckets=97, dim=3, hidden=5)
    student = build("text_bag", config, SCHEMA, [], 2, seeded())
    optimiser = torch.optim.AdamW(student.module.parameters(), lr=0.1)
    inputs = student.encoder.collate(student.encoder.encode(batch(["some words", ""])))
    for _ in range(3):
        optimiser.zero_grad()
        student.module(inputs).outputs.square().sum().backward()
        optimiser.step()
    assert torch.equal(student.module.table[0], torch.zeros(3))


def test_word_pairs_solve_what_single_words_cannot():
    # The class is whether the two words agree: a bag of single words sees nothing of that kind.
    texts = ["good fun", "bad joke", "good joke", "bad fun"] * 8
    labels = torch.tensor([1, 1, 0, 0] * 8)
    settings = {"buckets": 512, "char_max": 0, "dropout": 0.0}
    student = build("text_bag", settings, SCHEMA, [], 2, seeded())
    optimiser = torch.optim.AdamW(student.module.parameters(), lr=TextBagConfig.recommended_lr)
    inputs = student.encoder.collate(student.encoder.encode(batch(texts)))
    for _ in range(200):
        optimiser.zero_grad()
        F.cross_entropy(student.module(inputs).outputs, labels).backward()
        optimiser.step()
    assert torch.equal(student.module(inputs).outputs.argmax(1), labels)


def test_the_default_student_is_under_five_megabytes():
    student = build("text_bag", {}, SCHEMA, [], 10, seeded())
    assert sum(p.numel() * 4 for p in student.module.parameters()) < 5e6


def test_text_columns_are_joined_by_line_breaks_and_missing_ones_are_empty():
    assert join_columns([["a", None], ["b", "c"]]) == ["a\nb", "\nc"]
    assert join_columns([["a", None]]) == ["a", ""]


def test_every_bucket_fits_the_dtype():
    for buckets, dtype in ((2**16, np.uint16), (2**16 + 1, np.int32), (2**24, np.int32)):
        encoder = TextBagEncoder(("text",), TextBagConfig(buckets=buckets))
        assert encoder.dtype == dtype
        rows = encoder.encode(batch(["some words to hash " * 50]))
        assert rows.values.dtype == dtype
        assert rows.values.min() >= 1


@pytest.mark.parametrize(
    ("name", "value"),
    [("buckets", 1), ("dim", 0), ("hidden", 0), ("word_ngrams", 0), ("char_min", 1),
     ("char_max", 2), ("max_chars", 0), ("dropout", 1.0), ("dropout", -0.1)],
)  # fmt: skip
def test_a_bad_value_of_each_setting_is_refused_by_name(name, value):
    with pytest.raises(ConfigError, match=name):
        TextBagConfig(**{name: value})


def test_a_task_without_text_is_sent_to_tabular():
    schema = Schema(text=(), numeric=("x",), category=(), label=None, classes=("no", "yes"))
    with pytest.raises(ConfigError, match=r"its inputs: x.*'tabular'"):
        build("text_bag", {}, schema, [], 2, seeded())


def test_columns_that_it_does_not_read_are_named_and_left_out():
    schema = Schema(text=("text",), numeric=("x",), category=("c",), label=None, classes=("a", "b"))
    with pytest.warns(LimbeckWarning, match="x, c"):
        student = build("text_bag", {}, schema, [], 2, seeded())
    assert student.schema.inputs == ("text",)


def test_wrong_settings_class_is_refused():
    with pytest.raises(ConfigError, match="TextBagConfig"):
        build("text_bag", object(), SCHEMA, [], 2, seeded())


def test_broken_config_is_refused():
    config = TextBagEncoder(("text",), TextBagConfig()).to_config()
    with pytest.raises(ConfigError, match="columns"):
        TextBagEncoder.from_config({**config, "columns": "text"})
