"""Functions and tables as teachers, and what they are refused for."""

import json
import math
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from limbeck.data.ids import question_ids
from limbeck.engines.questions import batch_ids
from limbeck.errors import (
    AnswerError,
    ConfigError,
    DataError,
    LimbeckWarning,
    TeacherError,
)
from limbeck.teachers import (
    CallableTeacher,
    ColumnsTeacher,
    LocalTeacher,
    Money,
    Said,
    TableTeacher,
    Teacher,
    TeacherConfig,
    align_classes,
    build,
    candidate_columns,
    with_price,
)

CLASSES = ("no", "maybe", "yes")
GOOD = np.array([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0], [0.1, 0.8, 0.1]], np.float32)


def answer(teacher, rows):
    replies = teacher.ask(batch_ids(rows, teacher), rows)
    return teacher.parse(replies), replies


def saying(result):
    """A teacher that says the same about whatever it is asked."""
    return CallableTeacher(lambda rows: result, CLASSES, ("text",), fingerprint="1")


def plain(rows):
    return GOOD[: len(rows)]


def by_text(rows):
    return [GOOD["abc".index(str(row["text"]))] for row in rows]


def test_a_function_answers_with_the_rows_of_its_columns(rows):
    seen = []

    def function(asked):
        seen.extend(asked)
        return by_text(asked)

    teacher = CallableTeacher(function, CLASSES, ("text",), fingerprint="1")
    assert isinstance(teacher, Teacher)
    (answers, ok), replies = answer(teacher, rows)
    assert seen == [{"text": "a"}, {"text": "b"}, {"text": "c"}]
    assert ok.all()
    assert torch.equal(answers.probs, torch.from_numpy(GOOD))
    assert answers.embeddings is None
    assert np.array_equal(answers.ids, question_ids(rows, ("text",)))
    assert replies.price.tolist() == [0, 0, 0]


@pytest.mark.parametrize("form", [np.asarray, torch.tensor, lambda x: np.asarray(x).tolist()])
def test_arrays_tensors_and_lists_are_taken_with_embeddings(rows, form):
    embeddings = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
    (answers, _), _ = answer(saying((form(GOOD), form(embeddings))), rows)
    assert torch.equal(answers.probs, torch.from_numpy(GOOD))
    assert answers.embeddings.tolist() == embeddings


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([[0.2, 0.3, 0.5], [np.nan, 0.5, 0.5], [1, 0, 0]], r"lambda.*row 1 holds NaN or infinity"),
        ([[0.2, 0.3, 0.5], [1, 0, 0], [np.inf, 0, 0]], r"lambda.*row 2 holds NaN or infinity"),
        ([[-1.0, 1.0, 1.0], [1, 0, 0], [1, 0, 0]], r"lambda.*row 0 holds a negative.*softmax"),
        ([[0.2, 0.3, 0.1], [1, 0, 0], [1, 0, 0]], r"lambda.*row 0 sums to 0\.6.*divide"),
        ([[0.5, 0.5]] * 3, r"lambda.*2 probabilities a row but the task has 3 classes"),
        ([[1.0, 0.0, 0.0]] * 2, r"lambda.*of shape \(2, 3\) for 3 rows"),
        ([["x", "y", "z"]] * 3, r"lambda.*no matrix of numbers"),
    ],
)
def test_answers_that_are_no_probabilities_are_refused_by_teacher_and_row(rows, bad, message):
    with pytest.raises(AnswerError, match=message) as caught:
        answer(saying(bad), rows)
    assert caught.value.exit_code == 2


SPREAD = np.array([[0.25, 0.125, 0.5], [0, 0, 0], [1e-9, 0.1, 0.3]], np.float32)


class Members(LocalTeacher):
    """Says what it is given."""

    name, fingerprint, classes, columns = "members", "1", CLASSES, ("text",)

    def __init__(self, **said):
        self.said = {"probs": GOOD} | said

    def say(self, rows):
        return Said(**self.said)


@pytest.mark.parametrize("embeddings", [None, [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]]])
@pytest.mark.parametrize("failure", [None, [None, "it said nothing", None]])
def test_spread_goes_through_a_reply_bit_for_bit(rows, embeddings, failure):
    teacher = Members(spread=SPREAD, embeddings=embeddings, failure=failure)
    (answers, ok), _ = answer(teacher, rows)
    told = [True, failure is None, True]
    assert ok.tolist() == told
    assert np.array_equal(answers.spread.numpy(), SPREAD[told])
    assert np.array_equal(answers.probs.numpy(), GOOD[told])
    if embeddings is None:
        assert answers.embeddings is None
    else:
        assert np.array_equal(answers.embeddings.numpy(), np.array(embeddings)[told])


def test_replies_without_spread_are_what_they_always_were(rows):
    _, replies = answer(Members(embeddings=[[1.0], [2.0], [3.0]]), rows)
    halves = np.array([1, 2, 3], "<f2")
    assert list(replies.raw) == [GOOD[i].tobytes() + halves[i].tobytes() for i in range(3)]


def test_another_order_of_classes_moves_the_spread_too(rows):
    (answers, _), _ = answer(align_classes(Members(spread=SPREAD), CLASSES[::-1]), rows)
    assert np.array_equal(answers.spread.numpy(), SPREAD[:, ::-1])


@pytest.mark.parametrize(
    ("spread", "message"),
    [
        (SPREAD[:, :2], r"members gave 2 deviations a row but the task has 3 classes"),
        (SPREAD[:2], r"members gave deviations of shape \(2, 3\) for 3 rows"),
        (-SPREAD, r"spread that is negative, NaN or infinite"),
        (SPREAD * np.nan, r"spread that is negative, NaN or infinite"),
    ],
)
def test_a_spread_that_is_none_is_refused(rows, spread, message):
    with pytest.raises(AnswerError, match=message):
        answer(Members(spread=spread), rows)


def test_embeddings_that_do_not_fit_float16_are_refused(rows):
    embeddings = np.array([[1.0], [70000.0], [1.0]])
    with pytest.raises(AnswerError, match=r"embedding of row 1.*65504.*scale it down"):
        answer(saying((GOOD, embeddings)), rows)


def test_a_function_that_raises_is_one_sentence(rows):
    def function(asked):
        raise ValueError("no weights\n  in this file")

    teacher = CallableTeacher(function, CLASSES, ("text",), fingerprint="1")
    with pytest.raises(TeacherError, match="3 rows with ValueError: no weights in this file; try"):
        answer(teacher, rows)


def test_the_fingerprint_changes_with_what_changes_the_answers():
    def made(function=plain, classes=CLASSES, columns=("text",), **settings):
        return CallableTeacher(function, classes, columns, **settings).fingerprint

    assert made() == made()
    others = [
        made(by_text),
        made(classes=CLASSES[::-1]),
        made(columns=("text", "size")),
        made(fingerprint="2"),
    ]
    assert len({made(), *others}) == 5


def test_functions_that_their_source_does_not_tell_apart_need_a_fingerprint():
    captured = GOOD
    for function in (lambda rows: GOOD, lambda rows: captured, GOOD.__getitem__):
        with pytest.raises(ConfigError, match="pass fingerprint="):
            CallableTeacher(function, CLASSES, ("text",))


def test_another_order_of_classes_is_mapped_onto_the_tasks(rows):
    teacher = CallableTeacher(by_text, ("yes", "no", "maybe"), ("text",))
    aligned = align_classes(teacher, CLASSES)
    (answers, _), _ = answer(aligned, rows)
    assert torch.equal(answers.probs, torch.from_numpy(GOOD)[:, [1, 2, 0]])
    assert isinstance(aligned, Teacher)
    assert aligned.classes == CLASSES
    assert aligned.fingerprint != teacher.fingerprint
    assert align_classes(teacher, teacher.classes) is teacher


def test_classes_of_another_task_are_refused_by_name():
    teacher = CallableTeacher(by_text, ("yes", "no", "perhaps"), ("text",))
    with pytest.raises(ConfigError, match=r"missing \['maybe'\].*unknown.*\['perhaps'\]"):
        align_classes(teacher, CLASSES)


def test_a_price_can_be_rehearsed(rows):
    teacher = CallableTeacher(plain, CLASSES, ("text",))
    priced = with_price(teacher, 250, currency="EUR")
    assert isinstance(priced, Teacher)
    assert str(priced.quote(rows)) == "0.00075 EUR"
    assert priced.quote(rows).micros == 750
    _, replies = answer(priced, rows)
    assert replies.price.tolist() == [250] * 3
    assert priced.fingerprint == teacher.fingerprint
    assert with_price(teacher, 0) is teacher
    # What a teacher costs itself is not forgotten: it is really paid.
    dearer = with_price(priced, 7, currency="EUR")
    assert dearer.quote(rows) == Money(771, "EUR")
    assert answer(dearer, rows)[1].price.tolist() == [257] * 3
    with pytest.raises(ConfigError, match="price_per_answer=-1"):
        with_price(teacher, -1)


def with_answers(rows, **columns):
    arrays = {name: rows.column(name) for name in rows.schema.names}
    return pa.RecordBatch.from_pydict(arrays | columns)


def test_probabilities_in_columns_of_the_rows(rows, schema):
    columns = {f"prob_{name}": pa.array(GOOD[:, i].astype(float)) for i, name in enumerate(CLASSES)}
    full = with_answers(rows, **columns)
    teacher = ColumnsTeacher(schema, full.schema.names)
    (answers, ok), _ = answer(teacher, full)
    assert ok.all()
    assert torch.allclose(answers.probs, torch.from_numpy(GOOD))


def test_lists_in_the_rows_with_embeddings_and_gaps(rows, schema):
    lists = GOOD.astype(float).tolist()
    full = with_answers(
        rows,
        probs=pa.array([lists[0], None, lists[2]], pa.list_(pa.float64())),
        embedding=pa.array([[1.0, 2.0], [0.0, 0.0], [3.0, 4.0]], pa.list_(pa.float64())),
    )
    teacher = ColumnsTeacher(schema, full.schema.names)
    (answers, ok), replies = answer(teacher, full)
    assert ok.tolist() == [True, False, True]
    assert list(replies.failure) == [None, "not in the table", None]
    assert answers.embeddings.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    # The answers are part of the question: other answers, other question.
    edited = with_answers(full, probs=pa.array(lists[::-1], pa.list_(pa.float64())))
    ids, edited_ids = batch_ids(full, teacher), batch_ids(edited, teacher)
    assert (ids != edited_ids).any(axis=1).all()


def test_hard_labels_become_one_hot(rows, schema):
    full = with_answers(rows, guess=["yes", "no", None])
    teacher = ColumnsTeacher(schema, full.schema.names, label="guess")
    (answers, ok), _ = answer(teacher, full)
    assert answers.probs.tolist() == [[0, 0, 1], [1, 0, 0]]
    assert ok.tolist() == [True, True, False]
    with pytest.raises(AnswerError, match=r"row 2 has label 'never'"):
        answer(teacher, with_answers(rows, guess=["yes", "no", "never"]))


def test_a_table_without_answers_or_with_half_of_them_is_refused(schema):
    with pytest.raises(DataError, match=r"holds no answers.*prob_<class>"):
        ColumnsTeacher(schema, ["text", "size"])
    with pytest.raises(DataError, match=r"missing \['prob_yes'\], unknown \['prob_sure'\]"):
        ColumnsTeacher(schema, ["text", "size", "prob_no", "prob_maybe", "prob_sure"])
    with pytest.raises(DataError, match="no column 'guess'"):
        ColumnsTeacher(schema, ["text", "size"], label="guess")


def test_columns_that_may_hold_answers_are_known_by_their_names():
    names = ["text", "prob_a", "probs", "probs12", "embedding", "embedding0", "guess", "problem"]
    assert candidate_columns(names, label="guess") == (
        "prob_a",
        "probs",
        "probs12",
        "embedding",
        "embedding0",
        "guess",
    )


def is_nan(value):
    return isinstance(value, float) and math.isnan(value)


def write_table(path, rows, order, form):
    """Write answers in another order of the rows, in one of four formats."""
    shuffled = rows.take(pa.array(order))
    if form == "npz":
        np.savez(
            path,
            text=np.array(shuffled.column("text").to_pylist()),
            size=shuffled.column("size").to_numpy(zero_copy_only=False),
            probs=GOOD[order],
            embedding=np.arange(6.0).reshape(3, 2)[order],
        )
        return
    table = with_answers(
        shuffled,
        **{
            f"prob_{name}": pa.array(GOOD[order, i].astype(float)) for i, name in enumerate(CLASSES)
        },
    )
    if form == "csv":
        lines = [",".join(table.schema.names)]
        for row in table.to_pylist():
            values = ["" if is_nan(value) else str(value) for value in row.values()]
            lines.append(",".join(values))
        path.write_text("\n".join(lines) + "\n")
    elif form == "jsonl":
        rows_ = [{k: None if is_nan(v) else v for k, v in row.items()} for row in table.to_pylist()]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows_))
    else:
        pq.write_table(pa.Table.from_batches([table]), path)


@pytest.mark.parametrize("form", ["parquet", "csv", "jsonl", "npz"])
def test_a_file_of_answers_is_found_by_content_whatever_the_order(tmp_path, rows, schema, form):
    path = tmp_path / f"answers.{form}"
    write_table(path, rows, [2, 0, 1], form)
    teacher = TableTeacher(path, schema)
    (answers, ok), _ = answer(teacher, rows)
    assert ok.all()
    assert torch.allclose(answers.probs, torch.from_numpy(GOOD), atol=1e-6)
    if form == "npz":
        assert answers.embeddings.tolist() == [[0, 1], [2, 3], [4, 5]]


def test_a_row_that_is_not_in_the_file_is_a_failure_of_that_row(tmp_path, rows, schema):
    path = tmp_path / "answers.parquet"
    write_table(path, rows, [2, 0], "parquet")
    (answers, ok), replies = answer(TableTeacher(path, schema), rows)
    assert ok.tolist() == [True, False, True]
    assert list(replies.failure) == [None, "not in the table", None]
    assert torch.allclose(answers.probs, torch.from_numpy(GOOD)[[0, 2]])


def test_a_file_may_be_keyed_by_some_inputs_and_says_when_it_repeats_itself(tmp_path, rows, schema):
    path = tmp_path / "answers.csv"
    path.write_text("text,guess\na,yes\nb,no\na,no\n")
    with pytest.warns(LimbeckWarning, match="1 of 3 rows repeat"):
        teacher = TableTeacher(path, schema, columns=("text",), label="guess")
    (answers, ok), _ = answer(teacher, rows)
    assert answers.probs.tolist() == [[0, 0, 1], [1, 0, 0]]
    assert ok.tolist() == [True, True, False]


def test_a_changed_file_is_another_teacher(tmp_path, rows, schema):
    path = tmp_path / "answers.csv"
    path.write_text("text,guess\na,yes\n")
    first = TableTeacher(path, schema, columns=("text",), label="guess")
    path.write_text("text,guess\na,no\n")
    second = TableTeacher(path, schema, columns=("text",), label="guess")
    assert first.fingerprint != second.fingerprint


def test_bad_probabilities_in_a_file_are_refused_when_they_are_asked_for(tmp_path, rows, schema):
    path = tmp_path / "answers.csv"
    path.write_text("text,size,prob_no,prob_maybe,prob_yes\na,1,0.5,0.5,0.5\n")
    with pytest.raises(AnswerError, match=r"answers\.csv.*row 0 sums to 1\.5"):
        answer(TableTeacher(path, schema), rows.slice(0, 1))


def test_a_config_makes_each_kind_and_names_what_is_missing(tmp_path, rows, schema):
    (tmp_path / "my_teacher_1.py").write_text(
        "def answer(rows):\n    return [[0.0, 0.0, 1.0] for _ in rows]\n"
    )
    config = TeacherConfig(kind="callable", function="my_teacher_1:answer", price_per_answer=3)
    teacher = build(config, schema, tmp_path)
    (answers, _), replies = answer(teacher, rows)
    assert answers.probs[:, 2].tolist() == [1, 1, 1]
    assert replies.price.tolist() == [3, 3, 3]
    with pytest.warns(LimbeckWarning, match=r"teacher\.people means nothing"):
        config = replace(config, people=5)
    assert build(config, schema, tmp_path).quote(rows) == Money(9)
    assert teacher.columns == ("text", "size")
    swapped = TeacherConfig(
        kind="callable", function="my_teacher_1:answer", classes=("yes", "maybe", "no")
    )
    (answers, _), _ = answer(build(swapped, schema, tmp_path), rows)
    assert answers.probs[:, 0].tolist() == [1, 1, 1]

    path = tmp_path / "answers.parquet"
    write_table(path, rows, [0, 1, 2], "parquet")
    (_, ok), _ = answer(build(TeacherConfig(kind="table", path=path), schema, tmp_path), rows)
    assert ok.all()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"kind": "tabel"}, "did you mean 'table'"),
        ({"kind": "callable"}, r"needs teacher\.function"),
        ({"kind": "module"}, r"needs teacher\.factory"),
        ({"kind": "student"}, r"needs teacher\.path"),
        ({"kind": "callable", "function": "no_such_module:f"}, "cannot be imported"),
        ({"kind": "callable", "function": "json"}, r"expected package\.module:name"),
        ({"kind": "callable", "function": "json:decoder"}, "is no function"),
        ({"kind": "callable", "function": "json:dumps", "columns": ("x",)}, "'x', which is no"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(tmp_path, schema, config, message):
    with pytest.raises(ConfigError, match=message):
        build(TeacherConfig(**config), schema, tmp_path)


def test_a_config_refuses_bad_values_and_moves_its_paths(tmp_path):
    with pytest.raises(ConfigError, match="kind is empty"):
        TeacherConfig(kind="")
    for price in (-1, 10**12 + 1):
        with pytest.raises(ConfigError, match=f"price_per_answer={price}"):
            TeacherConfig(kind="table", price_per_answer=price)
    assert (
        TeacherConfig(kind="table", path="a.csv").relative_to(tmp_path).path == tmp_path / "a.csv"
    )
    moved = TeacherConfig(kind="module", factory="m:f", weights="w").relative_to(tmp_path)
    assert moved.weights == tmp_path / "w"
