"""People as a teacher: files out, labels back, and a ledger that holds whatever happens between."""

import csv
import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from limbeck.cli import run as command
from limbeck.distill import desk
from limbeck.distill.folder import RunFolder
from limbeck.distill.people import ask, tell, withdraw
from limbeck.distill.plan import make_plan
from limbeck.distill.run import distill, load_teacher, run_id, stage
from limbeck.distill.run_file import load_config
from limbeck.errors import BudgetError, ConfigError, DataError
from limbeck.ledger import SqliteLedger

RUN = """
budget = {budget}
money = {money}
out = "run"
onnx = false

[data]
labelled = "labelled.csv"
validation = "validation.csv"
test = "test.csv"
pool = "pool.csv"

[teacher]
kind = "human"
question = "Up or down?"
price_per_answer = {price}
people = {people}

[student.settings]
hidden = 8

[train]
steps = 8
evaluations = 2
pool_batch = 16
labelled_batch = 8
folds = 2

[objective]
arms = ["labels", "slam"]
slam_target = "hard"
"""
VALIDATION, TEST, POOL = 8, 6, 20


def make(folder, *, budget=30, price=0, money=0.0, persons=1):
    rng = np.random.default_rng(0)
    sizes = {"labelled": 20, "validation": VALIDATION, "test": TEST, "pool": POOL}
    for name, n in sizes.items():
        lines = ["a,b" + ("" if name == "pool" else ",label")]
        for i, (size, b) in enumerate(rng.normal(size=(n, 2)).round(6)):
            a = abs(size) if i % 2 else -abs(size)
            label = "" if name == "pool" else "," + ("up" if a > 0 else "down")
            lines.append(f"{a},{b}{label}")
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")
    text = RUN.format(budget=budget, money=money, price=price, people=persons)
    (folder / "run.toml").write_text(text)
    return load_config(folder / "run.toml")


@pytest.fixture
def config(tmp_path):
    return make(tmp_path)


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def truth(row):
    return "up" if float(row["a"]) > 0 else "down"


def fill(path, label=truth, *, to=None):
    """Fill the label in, with a function of the row."""
    rows = rows_of(path)
    target = to or path
    with target.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows({**row, "label": label(row)} for row in rows)
    return target


def spent(config):
    with SqliteLedger(config.ledger) as ledger:
        return ledger.spent(run_id(RunFolder(config.out)))


def answers_of(config, rows):
    """What the ledger holds for rows of a file, by their ids."""
    folder = RunFolder(config.out)
    teacher = load_teacher(config, stage(config, folder), folder)
    ids = np.stack([np.frombuffer(bytes.fromhex(row["question_id"][1:]), np.uint8) for row in rows])
    with SqliteLedger(config.ledger) as ledger:
        return ledger.known(teacher.fingerprint, ids), (
            lambda: ledger_answers(config, teacher.fingerprint, ids)
        )


def ledger_answers(config, fingerprint, ids):
    with SqliteLedger(config.ledger) as ledger:
        return ledger.answers(fingerprint, ids).probs.numpy()


# -- what goes out


def test_validation_goes_out_first_then_test_then_pool_and_nothing_twice(config):
    sizes, seen = [], []
    while (asked := ask(config, rows=10)).path:
        sizes.append(asked.rows)
        seen += [row["question_id"] for row in rows_of(asked.path)]
    assert sizes == [
        {"validation": 8, "test": 2, "pool": 0},
        {"validation": 0, "test": 4, "pool": 6},
        {"validation": 0, "test": 0, "pool": 10},
    ]
    assert len(seen) == len(set(seen)) == 30  # the budget
    assert "none is left" in asked.text()


def test_a_line_holds_inputs_question_classes_and_an_empty_label(config, tmp_path):
    rows = rows_of(ask(config, rows=VALIDATION).path)
    assert list(rows[0]) == ["question_id", "a", "b", "question", "classes", "label"]
    assert {(r["question"], r["classes"], r["label"]) for r in rows} == {
        ("Up or down?", "down | up", "")
    }
    with (tmp_path / "validation.csv").open() as file:
        wanted = [(float(row["a"]), float(row["b"])) for row in csv.DictReader(file)]
    assert [(float(row["a"]), float(row["b"])) for row in rows] == wanted


def test_the_pool_goes_out_in_random_order_that_the_seed_fixes(config, tmp_path):
    ask(config, rows=VALIDATION + TEST)
    first = rows_of(ask(config, rows=6).path)
    with (tmp_path / "pool.csv").open() as file:
        place = {float(row["a"]): i for i, row in enumerate(csv.DictReader(file))}
    places = [place[float(row["a"])] for row in first]
    assert places != sorted(places)
    other = tmp_path / "other"
    other.mkdir()
    again = make(other)
    ask(again, rows=VALIDATION + TEST)
    assert rows_of(ask(again, rows=6).path) == first


def test_images_go_out_as_files_that_a_browser_shows(tmp_path):
    rng = np.random.default_rng(0)

    def images(n):
        return rng.integers(0, 256, (n, 8, 8, 3)).astype(np.uint8)

    labels = np.array(["cat", "dog"] * 10)
    for name, n in {"labelled": 20, "validation": 4, "test": 4}.items():
        np.savez(tmp_path / f"{name}.npz", x=images(n), y=labels[:n])
    np.savez(tmp_path / "pool.npz", x=images(6))
    (tmp_path / "run.toml").write_text(
        'budget = 12\nout = "run"\n[data]\nlabelled = "labelled.npz"\nvalidation = '
        '"validation.npz"\ntest = "test.npz"\npool = "pool.npz"\nlabel = "y"\n'
        '[teacher]\nkind = "human"\n'
    )
    config = load_config(tmp_path / "run.toml")
    asked = ask(config, rows=4, path=tmp_path / "out/these.jsonl")
    lines = [json.loads(line) for line in asked.path.read_text().splitlines()]
    stored = np.load(tmp_path / "validation.npz")["x"]
    for line, pixels in zip(lines, stored, strict=True):
        file = asked.path.parent / line["x"]
        assert file.suffix == ".png"
        assert np.array_equal(np.asarray(Image.open(file)), pixels)


# -- what comes back


@pytest.mark.slow
def test_what_is_told_is_what_the_run_learns_from(config):
    asked = ask(config, rows=30)
    told = tell(config, [fill(asked.path)])
    assert (told.answered, told.out) == (30, 0)
    outcome = distill(config)
    assert outcome.evaluation.teacher.accuracy.estimate == 1.0
    assert outcome.record.cost.bought == 30
    _, read = answers_of(config, rows_of(asked.path))
    wanted = [[0.0, 1.0] if truth(row) == "up" else [1.0, 0.0] for row in rows_of(asked.path)]
    assert read().tolist() == wanted


def test_partial_returns_are_welcome_in_any_order_and_twice(config, tmp_path):
    asked = ask(config, rows=10)
    rows = rows_of(asked.path)[::-1]
    for row in rows[:4]:
        row["label"] = truth(row)
    for end in (2, 4, 4, 10):
        part = tmp_path / "part.csv"
        text = io.StringIO()
        writer = csv.DictWriter(text, ["label", "question_id"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows[:end])
        part.write_text(text.getvalue())
        told = tell(config, [part])
    assert (told.answered, told.before, told.empty, told.out) == (0, 4, 6, 6)
    assert spent(config).answered == 4
    assert spent(config).reserved == 6


def test_a_spreadsheets_way_of_saving_is_read(config, tmp_path):
    rows = rows_of(ask(config, rows=4).path)
    lines = ["question_id;note;label"]
    lines += [f'{row["question_id"]};"two\nlines; here";{truth(row).upper()} ' for row in rows]
    (tmp_path / "excel.csv").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode() + b"\r\n")
    assert tell(config, [tmp_path / "excel.csv"]).answered == 4


def test_not_sure_is_no_answer_and_is_not_asked_again(config):
    asked = ask(config, rows=5)
    first = rows_of(asked.path)[0]["question_id"]
    fill(asked.path, lambda row: "Not sure" if row["question_id"] == first else truth(row))
    told = tell(config, [asked.path])
    assert (told.answered, told.not_sure, told.out) == (4, 1, 0)
    known, _ = answers_of(config, rows_of(asked.path))
    assert known.tolist() == [False, True, True, True, True]
    again = [row["question_id"] for row in rows_of(ask(config, rows=30).path)]
    assert first not in again
    assert spent(config).failed == 1


def test_several_files_are_votes_and_their_shares_are_the_answer(tmp_path):
    config = make(tmp_path, price=100, persons=3)
    asked = ask(config, rows=3)
    assert asked.price.micros == 3 * 3 * 100
    rows = rows_of(asked.path)
    said = [("up", "up", "down"), ("up", "not sure", "up"), ("down", "", "not sure")]
    by_id = {row["question_id"]: labels for row, labels in zip(rows, said, strict=True)}
    files = [
        fill(asked.path, lambda row, i=i: by_id[row["question_id"]][i], to=tmp_path / f"{i}.csv")
        for i in range(3)
    ]
    told = tell(config, files)
    _, read = answers_of(config, rows)
    # Classes are sorted: down, up.
    np.testing.assert_allclose(read(), [[1 / 3, 2 / 3], [0, 1], [1, 0]], atol=1e-6)
    # Six votes were given; what was reserved for the others is free again.
    assert told.price.micros == spent(config).money.micros == 6 * 100


def test_more_votes_than_people_are_refused(config, tmp_path):
    asked = ask(config, rows=2)
    files = [fill(asked.path, to=tmp_path / f"{i}.csv") for i in range(2)]
    with pytest.raises(DataError, match=r"2 lines .*1.csv, line 2: more people .*people=1"):
        tell(config, files)


BROKEN = {
    "a wrong class": ("label", "upp", r"line 3: 'upp' is no class \(did you mean 'up'\?\)"),
    "a changed id": ("question_id", "q" + "0" * 32, "line 3: 'q0+' is no question of this run"),
    "a broken id": ("question_id", "1.2E+31", r"line 3: '1\.2E\+31' is no question"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_used_is_told_by_its_line_and_nothing_is_recorded(name, config):
    column, value, words = BROKEN[name]
    asked = ask(config, rows=5)
    rows = rows_of(fill(asked.path))
    rows[1][column] = value
    write_rows(asked.path, rows)
    with pytest.raises(
        DataError, match=f"^1 line cannot be used, so nothing was recorded: .*{words}"
    ):
        tell(config, [asked.path])
    assert spent(config).answered == 0
    told = tell(config, [asked.path], keep_valid=True)
    assert (told.answered, told.out, len(told.left_out)) == (4, 1, 1)


def write_rows(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


def test_two_labels_for_one_question_name_both_lines_and_one_label_twice_is_fine(config):
    asked = ask(config, rows=3)
    rows = rows_of(fill(asked.path))
    other = "down" if rows[0]["label"] == "up" else "up"
    write_rows(asked.path, [*rows, rows[1], {**rows[0], "label": other}])
    with pytest.raises(
        DataError,
        match=f"line 6: the question is labelled '{other}' here and '{rows[0]['label']}' in line 2",
    ):
        tell(config, [asked.path])
    told = tell(config, [asked.path], keep_valid=True)
    assert told.answered == 2
    known, _ = answers_of(config, rows)
    assert known.tolist() == [False, True, True]


def test_line_numbers_count_lines_of_the_file_not_rows(config):
    asked = ask(config, rows=3)
    rows = rows_of(fill(asked.path))
    rows[0]["question"] = "over\nthree\nlines"
    rows[2]["label"] = "x"
    write_rows(asked.path, rows)
    number = next(
        i
        for i, line in enumerate(asked.path.read_text().split("\n"), 1)
        if line.startswith(rows[2]["question_id"])
    )
    with pytest.raises(
        DataError, match=f"line {number}: 'x' is no class .expected one of down, up"
    ):
        tell(config, [asked.path])


def test_another_label_for_an_answered_question_comes_too_late(config):
    asked = ask(config, rows=3)
    tell(config, [fill(asked.path)])
    fill(asked.path, lambda row: "up" if truth(row) == "down" else "down")
    with pytest.raises(DataError, match="comes too late, the question was answered with"):
        tell(config, [asked.path])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("question_id,answer\nq1,up\n", "no columns 'label'"),
        ("label\nup\n", "no columns 'question_id'"),
        ('question_id,label\nq1,"up\n', "save the file as CSV again"),
    ],
)
def test_a_file_that_is_none_is_refused(text, words, config, tmp_path):
    ask(config, rows=3)
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(DataError, match=words):
        tell(config, [tmp_path / "x.csv"])


def test_endings_and_missing_files_are_refused_before_anything_is_reserved(config, tmp_path):
    with pytest.raises(ConfigError, match=r"should end in \.csv"):
        ask(config, rows=3, path=tmp_path / "x.xlsx")
    (tmp_path / "old.csv").write_text("labels of days\n")
    with pytest.raises(ConfigError, match="exists, perhaps with labels in it"):
        ask(config, rows=3, path=tmp_path / "old.csv")
    with pytest.raises(DataError, match="there is no file"):
        tell(config, [tmp_path / "nowhere.csv"])
    with pytest.raises(ConfigError, match="rows=0"):
        ask(config, rows=0)
    assert spent(config).queries == 0


# -- money, processes, and the run


@pytest.mark.slow
def test_an_order_outlives_the_process_that_made_it(config, tmp_path):
    """What a dead process has reserved is given back by the next one, but not this."""
    done = subprocess.run(
        [sys.executable, "-m", "limbeck", "ask", str(tmp_path / "run.toml"), "--rows", "9"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    path = next((tmp_path / "run/orders").glob("*.csv"))
    assert f"wrote     {path}" in done.stdout
    assert spent(config).reserved == 9
    assert spent(config).unknown == 0
    assert tell(config, [fill(path)]).answered == 9


def test_what_is_out_counts_against_both_budgets(tmp_path):
    config = make(tmp_path, budget=16, price=1_000_000, money=16.0)
    allowed = []
    ask(config, rows=10, agree=allowed.append)
    assert str(allowed[0]) == "10.00 USD"
    assert spent(config).money.micros == 10_000_000
    assert sum(ask(config, rows=10).rows.values()) == 6
    assert ask(config, rows=1).path is None
    more = make(tmp_path, budget=16, price=1_000_000, money=15.5)
    withdraw(more)
    assert sum(ask(more, rows=20).rows.values()) == 15
    with pytest.raises(BudgetError, match="not one of 1 more questions fits"):
        ask(more, rows=20)


def test_a_price_that_is_refused_reserves_nothing(tmp_path):
    config = make(tmp_path, price=5)

    def refuse(price):
        raise ConfigError("too dear")

    with pytest.raises(ConfigError, match="too dear"):
        ask(config, rows=3, agree=refuse)
    assert spent(config).queries == 0


def test_withdrawn_questions_can_go_out_again_and_late_labels_are_refused(config):
    old = ask(config, rows=5).path
    assert withdraw(config) == 5
    with pytest.raises(DataError, match="never asked, or was withdrawn"):
        tell(config, [fill(old)])
    new = ask(config, rows=5).path
    assert [r["question_id"] for r in rows_of(new)] == [r["question_id"] for r in rows_of(old)]


def test_a_lost_file_is_written_again_without_a_second_reservation(config):
    first = ask(config, rows=5)
    lost = {row["question_id"] for row in rows_of(first.path)}
    again = ask(config, rows=50, again=True)
    assert {row["question_id"] for row in rows_of(again.path)} == lost
    assert spent(config).reserved == 5
    assert ask(config, rows=50, again=True).path != again.path
    tell(config, [fill(again.path)])
    with pytest.raises(ConfigError, match="no question is out"):
        ask(config, rows=5, again=True)


@pytest.mark.slow
def test_a_run_stops_with_the_command_to_use_until_people_have_answered(config, tmp_path, capsys):
    run = str(tmp_path / "run.toml")
    assert command(["distill", run]) == 2
    assert "8 of 8 validation questions have no answer of people yet" in capsys.readouterr().err
    asked = ask(config, rows=VALIDATION + 2)
    assert command(["distill", run]) == 2
    said = capsys.readouterr().err
    assert "10 questions are out with people" in said
    assert "limbeck ask" in said
    assert "limbeck tell" in said
    tell(config, [fill(asked.path)])
    with pytest.raises(ConfigError, match="4 of 6 test questions"):
        distill(config)
    tell(config, [fill(ask(config, rows=4).path)])
    with pytest.raises(ConfigError, match=r"16 of 16 pool questions"):
        distill(config)
    tell(config, [fill(ask(config, rows=10).path)])
    outcome = distill(config)
    assert "10 of 16" in (config.out / "events.jsonl").read_text()
    assert outcome.record.cost.bought == 24


def test_with_the_budget_spent_a_run_says_so(config):
    tell(config, [fill(ask(config, rows=VALIDATION + TEST).path)])
    with pytest.raises(
        BudgetError, match=r"16 of 16 pool .* the budget .14 answers. is spent; raise"
    ):
        distill(replace(config, budget=VALIDATION + TEST))


def test_a_plan_counts_what_is_out_once_and_no_run_asks_to_spend(tmp_path, capsys):
    config = make(tmp_path, price=1_000_000)
    ask(config, rows=10)
    plan = make_plan(config)
    assert (plan.validation, plan.test, plan.pool) == (8, 6, 16)
    assert not plan.spends
    assert command(["distill", str(tmp_path / "run.toml")]) == 2
    assert "Nobody is here to answer" not in capsys.readouterr().err


def test_other_kinds_of_teachers_are_not_asked_in_files(config, tmp_path):
    text = (tmp_path / "run.toml").read_text().replace('kind = "human"', 'kind = "fit"')
    (tmp_path / "run.toml").write_text(text)
    with pytest.warns(UserWarning, match="means nothing"):
        other = load_config(tmp_path / "run.toml")
    for use in (lambda: ask(other, rows=3), lambda: tell(other, [tmp_path / "pool.csv"])):
        with pytest.raises(ConfigError, match="is asked by the run itself"):
            use()


def test_a_kill_between_reservation_and_file_loses_nothing(config, monkeypatch):
    def die(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(desk, "write_sheet", die)
        with pytest.raises(KeyboardInterrupt):
            ask(config, rows=5)
    assert spent(config).reserved == 5
    assert len(rows_of(ask(config, rows=50, again=True).path)) == 5


def test_labels_are_recorded_all_or_none(config, monkeypatch):
    """Two orders in one file, and a fault in the second."""
    one, two = ask(config, rows=3), ask(config, rows=3)
    write_rows(one.path, [*rows_of(fill(one.path)), *rows_of(fill(two.path))])
    real, calls = SqliteLedger.record, []

    def faulty(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise OSError("the disk is gone")
        return real(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(SqliteLedger, "record", faulty)
        with pytest.raises(OSError, match="the disk is gone"):
            tell(config, [one.path])
    assert spent(config).answered == 0
    assert tell(config, [one.path]).answered == 6


def test_rows_with_equal_questions_go_out_once(tmp_path):
    config = make(tmp_path)
    pool = (tmp_path / "pool.csv").read_text().splitlines()
    (tmp_path / "pool.csv").write_text("\n".join([*pool, *pool[1:4]]) + "\n")
    ids = [row["question_id"] for row in rows_of(ask(config, rows=30).path)]
    assert len(set(ids)) == len(ids) == 30


def test_commands_talk_in_words_and_in_json(config, tmp_path, capsys):
    run = str(tmp_path / "run.toml")
    assert command(["ask", run, "--rows", "4", "--json"]) == 0
    asked = json.loads(capsys.readouterr().out)
    assert asked["rows"] == {"validation": 4, "test": 0, "pool": 0}
    path = fill(Path(asked["path"]))
    assert command(["tell", run, str(path)]) == 0
    assert "4 recorded, 0 not sure" in capsys.readouterr().out
    assert command(["ask", run, "--rows", "2"]) == 0
    assert "2 (2 validation); 2 are out in all" in capsys.readouterr().out
    assert command(["ask", run, "--withdraw"]) == 0
    assert "2 questions were withdrawn" in capsys.readouterr().err


def test_a_column_called_label_or_question_is_shown_under_another_name(tmp_path):
    rows = {"question": ["a", "b", "c"] * 10, "y": ["u", "v", "u"] * 10}
    rows["question"] = [f"{text} {i}" for i, text in enumerate(rows["question"])]
    pq.write_table(pa.table(rows), tmp_path / "labelled.parquet")
    pq.write_table(pa.table({"question": ["d", "e"]}), tmp_path / "pool.parquet")
    (tmp_path / "run.toml").write_text(
        'budget = 20\nout = "run"\n[data]\nlabelled = "labelled.parquet"\npool = "pool.parquet"\n'
        'text = ["question"]\nlabel = "y"\n[teacher]\nkind = "human"\n'
    )
    first = rows_of(ask(load_config(tmp_path / "run.toml"), rows=1).path)[0]
    assert first["question"] == "Which class is right?"
    assert first["input_question"]
