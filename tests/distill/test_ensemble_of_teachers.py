"""A run whose teacher is the mean of several: each is asked, paid and remembered on its own."""

from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from limbeck.distill.compare import compare
from limbeck.distill.compare_config import CompareConfig
from limbeck.distill.compare_plan import make_compare_plan
from limbeck.distill.folder import RunFolder, to_toml
from limbeck.distill.label import label
from limbeck.distill.plan import make_plan
from limbeck.distill.pool_choice import read_selection
from limbeck.distill.run import distill, run_id
from limbeck.distill.run_file import load_config
from limbeck.errors import ConfigError, TeacherError
from limbeck.ledger import SqliteLedger
from limbeck.teachers.config import TeacherConfig
from tests.distill.material import make

MEMBER = """
from pathlib import Path

HERE = Path(__file__)


def ask(rows):
    with HERE.with_suffix(".asked").open("a") as log:
        log.writelines(repr(tuple(row.values())) + "\\n" for row in rows)
    if HERE.with_suffix(".broken").exists():
        raise RuntimeError("out of order")
    return [[1 - {p}, {p}] if row["{by}"] > 0 else [{p}, 1 - {p}] for row in rows]
"""
VALIDATION, TEST = 30, 40
SURE = {"one": (0.9, "a"), "two": (0.6, "b"), "three": (0.7, "a")}
PRICES = {"one": 10, "two": 300, "three": 5}


class Lab:
    """A run file with members that write down what they are asked."""

    def __init__(self, folder, **sizes):
        self.material = make(folder, **sizes)
        self.folder = folder
        # Modules are cached by name in a process.
        self.mark = f"m{abs(hash(str(folder)))}"
        for name, (p, by) in SURE.items():
            (folder / f"{self.mark}_{name}.py").write_text(MEMBER.format(p=p, by=by))
        self.plain = load_config(self.material.run_file)

    def config(self, *names, out="run", columns=None, **changes):
        members = tuple(
            TeacherConfig(
                kind="callable",
                function=f"{self.mark}_{name}:ask",
                price_per_answer=PRICES[name],
                columns=(columns or {}).get(name, ()),
            )
            for name in names
        )
        teacher = TeacherConfig(kind="ensemble", teachers=members)
        return replace(self.plain, teacher=teacher, out=self.folder / out, **changes)

    def asked(self, name):
        log = self.folder / f"{self.mark}_{name}.asked"
        return log.read_text().splitlines() if log.exists() else []

    def counts(self):
        return {name: len(self.asked(name)) for name in SURE}


@pytest.fixture
def lab(tmp_path):
    return Lab(tmp_path)


def spent(config):
    with SqliteLedger(config.ledger) as ledger:
        return ledger.spent(run_id(RunFolder(config.out)))


def test_every_member_is_asked_once_about_every_row_and_counted(lab):
    config = lab.config("one", "two", budget=2 * (VALIDATION + TEST + 50))
    plan = make_plan(config)
    label(config)
    each = VALIDATION + TEST + 50
    assert lab.counts() == {"one": each, "two": each, "three": 0}
    assert all(len(set(lab.asked(name))) == each for name in ("one", "two"))
    assert lab.asked("one") == lab.asked("two")
    found = spent(config)
    assert found.answered == found.queries == 2 * each == config.budget
    assert found.money.micros == each * (10 + 300)
    # The plan has said so.
    assert (plan.validation, plan.test, plan.pool, plan.owned) == (60, 80, 100, 0)
    assert plan.price.micros == found.money.micros


def test_a_run_learns_from_the_mean_which_is_taken_when_answers_are_read(lab, tmp_path):
    config = lab.config("one", "two", budget=400)
    label(config, answers=tmp_path / "answers.parquet")
    table = pq.read_table(tmp_path / "answers.parquet").to_pydict()
    for a, b, down in zip(table["a"], table["b"], table["prob_down"], strict=True):
        one, two = (0.1 if a > 0 else 0.9), (0.4 if b > 0 else 0.6)
        assert down == pytest.approx((one + two) / 2, abs=1e-6)
    with SqliteLedger(config.ledger) as ledger:
        connection = ledger._connections.get()
        rows = connection.execute("SELECT COUNT(*) FROM teachers").fetchone()
    assert rows == (2,)  # nothing is kept under the ensemble's own name


def test_a_teacher_that_joins_later_is_all_that_is_paid_for(lab):
    label(lab.config("one", "two", budget=300))
    before = lab.counts()
    config = lab.config("one", "two", "three", budget=150, out="second")
    plan = make_plan(config)
    label(config)
    after = lab.counts()
    assert (after["one"], after["two"]) == (before["one"], before["two"])
    assert after["three"] == before["one"] == spent(config).answered == 150
    assert (plan.validation, plan.test, plan.pool) == (30, 40, 80)
    assert plan.owned == 2 * 150
    assert plan.price.micros == spent(config).money.micros == 150 * 5
    # The rows are those that the first run has bought.
    first, second = (read_selection(RunFolder(lab.folder / out)) for out in ("run", "second"))
    assert np.array_equal(first, second)


def test_members_alone_and_in_an_ensemble_share_answers(lab):
    label(lab.config("one", "two", budget=300))
    alone = replace(lab.config("one", "two"), teacher=lab.config("one", "two").teacher.teachers[0])
    config = replace(alone, out=lab.folder / "alone", budget=80)
    before = lab.counts()
    label(config)
    assert lab.counts()["two"] == before["two"]
    assert lab.counts()["one"] == before["one"] + spent(config).answered
    assert len(set(lab.asked("one"))) == lab.counts()["one"]


def test_members_that_see_other_columns_have_questions_of_their_own(lab, tmp_path):
    pool = (tmp_path / "pool.csv").read_text().splitlines()
    # Every pool row twice, with another b: one question to whoever sees a alone.
    doubled = [f"{line.split(',')[0]},{i + 0.5}" for i, line in enumerate(pool[1:])]
    (tmp_path / "pool.csv").write_text("\n".join([*pool, *doubled]) + "\n")
    config = lab.config("one", "two", columns={"one": ("a",)}, budget=1000)
    plan = make_plan(config)
    label(config, answers=tmp_path / "answers.parquet")
    before = VALIDATION + TEST
    assert lab.counts() == {"one": before + 90, "two": before + 180, "three": 0}
    assert plan.pool == 90 + 180
    table = pq.read_table(tmp_path / "answers.parquet").to_pydict()
    assert len(table["a"]) == 180
    for a, b, down in zip(table["a"], table["b"], table["prob_down"], strict=True):
        one, two = (0.1 if a > 0 else 0.9), (0.4 if b > 0 else 0.6)
        assert down == pytest.approx((one + two) / 2, abs=1e-6)


@pytest.mark.parametrize("budget", [142, 143, 199])
def test_no_budget_is_passed_and_no_row_is_paid_in_part(lab, budget):
    config = lab.config("one", "two", budget=budget)
    found = label(config)
    assert spent(config).queries <= budget
    assert found.pool_answers == (budget - 140) // 2
    assert lab.counts()["one"] == lab.counts()["two"]


def test_a_budget_that_does_not_reach_the_pool_is_refused_with_the_number(lab):
    # Validation and test need 140; one answer more is no row of the pool.
    with pytest.raises(ConfigError, match="raise it above 141"):
        make_plan(lab.config("one", "two", budget=141))
    cost = 70 * 310
    with pytest.raises(ConfigError, match=r"money=0\.0217 USD is less"):
        label(lab.config("one", "two", budget=400, money=cost / 1e6))
    assert lab.counts() == {"one": 0, "two": 0, "three": 0}


def test_money_ends_the_purchase_without_being_passed(lab):
    config = lab.config("one", "two", budget=400, money=(70 + 20) * 310 / 1e6)
    found = label(config)
    assert spent(config).money.micros <= 90 * 310
    assert found.pool_answers == len(lab.asked("two")) - 70 > 0


def test_a_member_that_breaks_loses_nothing_and_nobody_is_asked_twice(lab):
    config = lab.config("one", "two", budget=300)
    broken = lab.folder / f"{lab.mark}_two.broken"
    broken.write_text("")
    with pytest.raises(TeacherError, match="out of order"):
        label(config)
    first = lab.asked("one")
    assert len(first) == VALIDATION
    broken.unlink()
    label(config)
    assert lab.asked("one")[: len(first)] == first
    assert len(set(lab.asked("one"))) == len(lab.asked("one"))


@pytest.mark.slow
def test_the_whole_job_with_an_ensemble_and_again(lab):
    config = lab.config("one", "three", budget=260)
    outcome = distill(config)
    # Both members look at a, which is the truth.
    assert outcome.evaluation.teacher.accuracy.estimate == 1.0
    assert outcome.record.cost.bought == 260
    counts = lab.counts()
    distill(config)
    assert lab.counts() == counts


@pytest.mark.slow
def test_a_comparison_plans_what_its_seeds_then_buy(lab):
    config = CompareConfig(lab.config("one", "two", budget=240), seeds=2, workers=1)
    plan = make_compare_plan(config)
    compare(config, plan)
    assert plan.answers == sum(lab.counts().values())
    assert plan.needed == plan.answers
    assert make_compare_plan(config).answers == 0


def test_copies_on_a_cluster_are_refused_with_the_way_round(lab):
    config = lab.config("one", "two", budget=300, engine="ray")
    with pytest.raises(ConfigError, match="buy the answers of each of its teachers alone"):
        make_plan(config)


def test_a_run_file_with_an_ensemble_is_written_and_read_back(lab, tmp_path):
    config = lab.config("one", "two", budget=300)
    (tmp_path / "written.toml").write_text(to_toml(config))
    assert load_config(tmp_path / "written.toml") == config
    label(config)
    first, second = config.teacher.teachers
    other = replace(config.teacher, teachers=(first, replace(second, columns=("a",))))
    with pytest.raises(ConfigError, match=r"another teacher\.teachers\.2\.columns"):
        label(replace(config, teacher=other))
