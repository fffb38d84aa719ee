"""Answers bought in rounds: what is chosen, written, paid for and learnt from, and when it ends."""

import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from limbeck.distill import choosing, rounds, run
from limbeck.distill.buying import Buyer
from limbeck.distill.folder import RunFolder
from limbeck.distill.label import label
from limbeck.distill.plan import make_plan
from limbeck.distill.pool_choice import read_selection
from limbeck.distill.round_files import BESIDE, RoundFiles, read_stop
from limbeck.distill.run import choose_next, distill
from limbeck.distill.run_file import load_config
from limbeck.errors import ConfigError
from limbeck.select import SELECTORS
from tests.distill.material import ROUNDS, make

FIRST = 70  # validation and test
RAD = ("--buy.rule", "rad", "--buy.rounds", "3", "--buy.steps", "8")


def student_bytes(folder):
    return {p.name: p.read_bytes() for p in sorted((folder / "student").iterdir())}


def batches(folder, series="round"):
    files, found = RoundFiles(RunFolder(folder), series), []
    while (batch := files.batch(len(found) + 1)) is not None:
        found.append(batch)
    return found


def spent(material):
    return len(material.questions())


def buy(material, options):
    """The first half of a run: everything is bought and no arm is trained."""
    assert not choose_next(load_config(material.run_file, options))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    material = make(tmp_path_factory.mktemp("rounds"))
    return material, distill(load_config(material.run_file, RAD))


def test_the_budget_is_used_and_every_question_is_asked_once(finished):
    material, outcome = finished
    assert len(material.questions()) == len(set(material.questions())) == 150
    assert outcome.record.cost.bought == 150


def test_rounds_divide_the_budget_and_never_choose_a_row_twice(finished):
    found = batches(finished[0].folder / "run")
    assert [len(batch.rows) for batch in found] == [27, 27, 26]
    rows = np.concatenate([batch.rows for batch in found])
    assert len(set(rows.tolist())) == 80
    assert [batch.candidates for batch in found] == [90, 63, 36]
    assert np.array_equal(np.sort(rows), read_selection(RunFolder(finished[0].folder / "run")))


def test_every_row_could_be_chosen_and_a_tenth_of_each_batch_is_drawn_at_random(finished):
    for batch in batches(finished[0].folder / "run"):
        assert int(batch.audit.sum()) == 3
        assert (batch.probs > 0).all()
        assert (batch.probs <= 1).all()
        k, n = len(batch.rows), batch.candidates
        # A row that the rule never chooses is in the batch with the audit's share.
        assert batch.probs.min() >= 3 / (n - k + 3) - 1e-12
        assert 1 <= batch.support <= n


def test_the_first_student_has_seen_labels_only_and_the_last_everything(finished):
    files = RoundFiles(RunFolder(finished[0].folder / "run"))
    assert [files.look(n).answers for n in range(1, 5)] == [0, 27, 54, 80]
    assert files.look(5) is None


def test_the_report_tells_what_was_bought(finished):
    material, outcome = finished
    purchase = outcome.record.purchase
    found = batches(material.folder / "run")
    assert (purchase.rule, purchase.measure) == ("rad", "margin")
    assert [one.answers for one in purchase.rounds] == [0, 27, 54, 80]
    assert [one.chosen for one in purchase.rounds] == [27, 27, 26, 0]
    assert [one.support for one in purchase.rounds] == [*(one.support for one in found), None]
    assert purchase.rounds[0].accuracy.low < purchase.rounds[0].accuracy.estimate
    assert len(purchase.points) == 80
    assert all(0 <= one.wrong <= 1 for one in purchase.batches)
    assert (purchase.stopped, purchase.unbought, purchase.saved) == ("", 0, 0)
    page = (material.folder / "run" / "report.html").read_text()
    assert "What was bought" in page


def test_estimates_of_the_pool_hold_what_the_whole_pool_says(finished):
    """Of 90 pool rows 80 were bought, so the intervals are short and must hold the truth."""
    material, outcome = finished
    lines = (material.folder / "pool.csv").read_text().splitlines()[1:]
    says_up = [float(a) + 0.4 * float(b) > 0 for a, b in (line.split(",") for line in lines)]
    estimates = {one.name: one.estimate for one in outcome.record.purchase.estimates}
    found = estimates["the teacher says up"]
    assert found.low <= np.mean(says_up) <= found.high
    assert found.high - found.low < 0.2
    assert estimates["the teacher says down"].estimate == pytest.approx(1 - found.estimate)


def test_what_stopping_saved_is_told(tmp_path):
    material = make(tmp_path)
    wrong_teacher(material)
    priced = ["--teacher.price-per-answer", "5000"]
    purchase = distill(load_config(material.run_file, [*WORSE, *priced])).record.purchase
    assert purchase.unbought == 53
    assert purchase.saved == 53 * 5000
    assert "the teacher is right on" in purchase.stopped


def test_a_batch_is_on_disk_before_its_first_row_is_paid_for(tmp_path, monkeypatch):
    material, seen = make(tmp_path), []
    plain = Buyer.buy

    def look(self, split, rows, positions, **options):
        if split.startswith("round"):
            path = tmp_path / "run" / "selections" / f"{split}.parquet"
            seen.append(pq.read_table(path).column("row").to_pylist() == positions.tolist())
        return plain(self, split, rows, positions, **options)

    monkeypatch.setattr(Buyer, "buy", look)
    buy(material, RAD)
    assert seen == [True, True, True]


class Killed(BaseException):
    """A process that is gone."""


@pytest.mark.parametrize("moment", ["chosen", "paid"])
def test_killed_between_choosing_paying_and_training_it_goes_on_with_the_same_batch(
    finished, tmp_path, monkeypatch, moment
):
    reference, _ = finished
    material = make(tmp_path)
    config = load_config(material.run_file, RAD)
    plain = Buyer.buy

    def die(self, split, *rest, **options):
        if split == "round-2" and moment == "chosen":
            raise Killed
        tally = plain(self, split, *rest, **options)
        if split == "round-2":
            raise Killed
        return tally

    with monkeypatch.context() as patch:
        patch.setattr(Buyer, "buy", die)
        with pytest.raises(Killed):
            distill(config)
    before = batches(tmp_path / "run")
    assert len(before) == 2
    distill(config)
    after = batches(tmp_path / "run")
    for kept, now, wanted in zip(before, after, batches(reference.folder / "run"), strict=False):
        assert np.array_equal(kept.rows, now.rows)
        assert np.array_equal(now.rows, wanted.rows)
        assert np.array_equal(now.probs, wanted.probs)
    assert len(material.questions()) == len(set(material.questions())) == 150
    assert student_bytes(tmp_path / "run") == student_bytes(reference.folder / "run")


@pytest.mark.slow
def test_killed_before_every_file_of_the_second_round_it_makes_the_same_student(tmp_path):
    reference = make(tmp_path / "reference", more=ROUNDS)
    distill(load_config(reference.run_file))
    result = subprocess.run(
        [sys.executable, "-m", "tests.distill.kills", "rounds", str(tmp_path), "20"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert result.returncode == 0, result.stdout + result.stderr
    kills, (folder,) = json.loads(result.stdout.splitlines()[-1])
    assert kills >= 6
    expected = Counter(reference.questions())
    asked = Counter((Path(folder) / "asked.txt").read_text().splitlines())
    assert asked.keys() == expected.keys()
    assert (Path(folder) / "asked_though_settled.txt").read_text() == ""
    assert student_bytes(Path(folder) / "run") == student_bytes(reference.folder / "run")


@pytest.mark.parametrize("rule", SELECTORS)
def test_every_rule_buys_in_rounds(tmp_path, rule):
    if rule == "uniform":
        options = ["--buy.rounds", "2", "--buy.steps", "4"]
    else:
        options = ["--buy.rule", rule, "--buy.rounds", "2", "--buy.steps", "4"]
    material = make(tmp_path)
    buy(material, options)
    assert spent(material) == 150
    first, second = batches(tmp_path / "run")
    assert not set(first.rows) & set(second.rows)
    assert int(first.audit.sum()) == (0 if rule == "uniform" else 4)


def test_the_rule_hears_of_validation_and_never_of_bought_answers(tmp_path, monkeypatch):
    errors = []
    choose = choosing.choose_batch

    def listen(*args, **options):
        errors.append(options["teacher_error"])
        margins = torch.linspace(0, 1, 9)
        at = options["error_at"](margins)
        assert bool((at.diff() <= 0).all())  # teachers err where the student is unsure
        assert bool(((at >= 0) & (at <= 1)).all())
        return choose(*args, **options)

    monkeypatch.setattr(rounds, "choose_batch", listen)
    material = make(tmp_path)
    buy(material, RAD)
    lines = (tmp_path / "validation.csv").read_text().splitlines()[1:]
    rows = [(float(a), float(b), label) for a, b, label in (line.split(",") for line in lines)]
    wrong = sum((a + 0.4 * b > 0) != (label == "up") for a, b, label in rows)
    assert wrong
    assert errors == pytest.approx([wrong / 30] * 3)


def test_gains_are_those_of_a_student_in_evaluation_mode_on_plain_rows(tmp_path, monkeypatch):
    told = []
    original = choosing.choose_batch

    def look_twice(config, encoded, job, device, **options):
        pool = choosing._Pool(encoded, job, device, options["bought"], 90, 0.2)
        candidates = pool.candidates(options["bought"])
        first, again = (torch.cat(list(candidates.probs())) for _ in range(2))
        told.append(torch.equal(first, again) and not job.student.module.training)
        assert not first.requires_grad
        assert candidates.embeddings().shape[0] == len(candidates.rows)
        some = torch.tensor([0, 3])
        assert torch.equal(candidates.embeddings(some), candidates.embeddings()[some])
        return original(config, encoded, job, device, **options)

    monkeypatch.setattr(rounds, "choose_batch", look_twice)
    material = make(tmp_path)
    buy(material, [*RAD, "--student.settings.dropout", "0.5"])
    assert told == [True, True, True]


def test_rows_beside_those_of_the_rule_are_drawn_at_random_and_teach_no_arm(tmp_path):
    material = make(tmp_path)
    buy(material, [*RAD, "--buy.beside", "uniform"])
    assert FIRST + 40 < spent(material) <= 150
    own, others = batches(tmp_path / "run"), batches(tmp_path / "run", "beside")
    assert [len(one.rows) for one in own] == [len(one.rows) for one in others] == [14, 13, 13]
    rows = np.concatenate([one.rows for one in own])
    assert np.array_equal(read_selection(RunFolder(tmp_path / "run")), np.sort(rows))
    drawn = np.concatenate([one.rows for one in others])
    assert len(set(drawn.tolist())) == 40
    looks = RoundFiles(RunFolder(tmp_path / "run"), BESIDE)
    assert [looks.look(n).answers for n in range(1, 5)] == [0, 14, 27, 40]


WORSE = (*RAD[:-1], "300", "--train.learning-rate", "0.05")


def wrong_teacher(material):
    """Make the teacher of a task wrong where it can be."""
    (path,) = material.folder.glob("teacher_*.py")
    path.write_text(path.read_text().replace("> 0 else", "< -0.3 else"))


def test_a_teacher_worse_than_the_student_ends_the_purchase(tmp_path):
    material = make(tmp_path)
    wrong_teacher(material)
    options = WORSE
    buy(material, options)
    assert len(batches(tmp_path / "run")) == 1
    reason = read_stop(RunFolder(tmp_path / "run"))
    assert "the teacher is right on" in reason
    assert len(material.questions()) == FIRST + 27
    buy(material, [*options, "--budget", "155"])
    assert spent(material) == FIRST + 27


def test_without_the_stop_rule_everything_is_bought(tmp_path):
    material = make(tmp_path)
    wrong_teacher(material)
    buy(material, [*WORSE, "--buy.no-stop"])
    assert len(material.questions()) == 150


def test_money_that_ends_within_a_round_ends_the_rounds(tmp_path):
    material = make(tmp_path)
    priced = ["--teacher.price-per-answer", "5000", "--money", "0.5"]
    outcome = distill(load_config(material.run_file, [*RAD, *priced]))
    assert len(material.questions()) == 100  # 70 and 27 and 3
    assert "3 of 27" in outcome.record.cost.short
    more = ["--teacher.price-per-answer", "5000", "--money", "0.9"]
    buy(material, [*RAD, *more])
    assert spent(material) == 100


def test_trust_of_chosen_rows_looks_at_the_student_too(tmp_path, monkeypatch):
    held, plain = [], run.buy_in_rounds
    monkeypatch.setattr(
        run, "buy_in_rounds", lambda *a, **k: held.append(plain(*a, **k)) or held[-1]
    )
    buy(make(tmp_path / "rad"), RAD)
    buy(make(tmp_path / "uniform"), ["--buy.rounds", "2", "--buy.steps", "8"])
    chosen, drawn = held
    assert chosen.alpha.shape == (80,)
    assert bool(((chosen.alpha > 0) & (chosen.alpha <= 1)).all())
    assert drawn.alpha is None


OWN = """
import torch
from limbeck.select import Selection, Selector


class Last(Selector):
    name = "last"

    def select(self, candidates, k, generator):
        return Selection(candidates.rows[-k:], None)


def first_class(probs):
    return probs[:, 0]


def nothing(probs):
    return torch.full((len(probs),), float("nan"))
"""


def test_a_rule_and_a_measure_of_ones_own(tmp_path):
    material = make(tmp_path)
    name = f"own_{abs(hash(str(tmp_path)))}"
    (tmp_path / f"{name}.py").write_text(OWN)
    options = ["--buy.rule", f"{name}:Last", "--buy.per-round", "5", "--buy.audit-share", "0"]
    buy(material, options)
    (batch,) = batches(tmp_path / "run")
    assert batch.rows.tolist() == [85, 86, 87, 88, 89]
    assert np.isnan(batch.probs).all()
    other = make(tmp_path / "other")
    (other.folder / f"{name}.py").write_text(OWN)
    options = ["--buy.rule", "greedy", "--buy.measure", f"{name}:first_class"]
    buy(other, [*options, "--buy.per-round", "5"])
    (batch,) = batches(other.folder / "run")
    assert (batch.gains >= 0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--buy.rule", "radd"], r"did you mean 'rad'"),
        (["--buy.rule", "rad", "--buy.measure", "margn"], r"buy\.measure='margn'"),
        (["--buy.rule", "rad", "--buy.arm", "slma"], r"did you mean 'slam'"),
        (["--buy.rule", "rad", "--buy.arm", "labels"], r"learns from labels alone"),
        (["--buy.rule", "rad", "--buy.measure", "bald"], r"compares several students"),
        (["--buy.rounds", "81"], r"leaves 80 pool rows for buy\.rounds=81"),
        (["--buy.rounds", "91"], r"buy\.rounds=91 but the pool has 90 rows to choose from"),
        (["--buy.rounds", "2", "--buy.per-round", "41"], r"take 82; raise the budget to 152"),
        (["--buy.rounds", "0"], r"buy\.rounds=0: must be at least 1"),
        (["--buy.rule", "rad", "--buy.audit-share", "1.2"], r"must be in \[0, 1\]"),
        (["--buy.rounds", "2", "--buy.beside", "uniform"], r"buy the rule 'uniform' twice"),
        (["--buy.per-round", "5"], r"are for purchases in rounds"),
        (["--buy.rule", "nowhere:Rule"], r"nowhere"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_is_asked(tmp_path, options, message):
    material = make(tmp_path)
    with pytest.raises(ConfigError, match=message):
        distill(load_config(material.run_file, options))
    assert material.questions() == []
    with pytest.raises(ConfigError, match=message):
        make_plan(load_config(material.run_file, options))


def test_labelling_refuses_rounds(tmp_path):
    material = make(tmp_path)
    with pytest.raises(ConfigError, match=r"lets a student choose them"):
        label(load_config(material.run_file, RAD))
    assert material.questions() == []


def test_the_plan_says_what_rounds_can_cost_at_most(tmp_path):
    material = make(tmp_path)
    config = load_config(material.run_file, [*RAD, "--buy.per-round", "20"])
    plan = make_plan(config)
    assert (plan.validation, plan.test, plan.pool) == (30, 40, 60)
    assert "rad chooses in 3 rounds" in plan.ends
    assert not choose_next(config)
    assert spent(material) == 130
    after = make_plan(config)
    assert (after.validation, after.test, after.pool) == (0, 0, 0)


def test_rounds_are_as_long_whatever_the_ledger_holds(tmp_path):
    material = make(tmp_path)
    buy(material, [])
    known = spent(material)
    buy(material, [*RAD, "--out", str(tmp_path / "second")])
    assert [len(batch.rows) for batch in batches(tmp_path / "second")] == [27, 27, 26]
    assert spent(material) - known <= 10  # 80 of 90 pool rows were known


def test_only_some_candidates_are_looked_at_where_asked(tmp_path):
    material = make(tmp_path)
    options = [*RAD, "--buy.candidates", "50", "--buy.per-round", "10"]
    buy(material, options)
    assert [batch.candidates for batch in batches(tmp_path / "run")] == [50, 40, 30]


def test_a_trained_teacher_is_asked_in_rounds(tmp_path):
    material = make(tmp_path / "fit")
    text = material.run_file.read_text().replace('kind = "callable"', 'kind = "fit"')
    lines = [line for line in text.splitlines() if not line.startswith("function")]
    material.run_file.write_text("\n".join(lines) + "\n")
    buy(material, RAD)
    assert [len(batch.rows) for batch in batches(material.folder / "run")] == [27, 27, 26]


def test_the_same_run_gives_the_same_batches_and_another_seed_others(finished, tmp_path):
    config = load_config(make(tmp_path).run_file, RAD)
    choose_next(config)
    same = zip(batches(tmp_path / "run"), batches(finished[0].folder / "run"), strict=True)
    assert all(np.array_equal(one.rows, other.rows) for one, other in same)
    choose_next(replace(config, seed=1, out=tmp_path / "other"))
    pairs = zip(batches(tmp_path / "run"), batches(tmp_path / "other"), strict=True)
    assert not all(np.array_equal(one.rows, other.rows) for one, other in pairs)
