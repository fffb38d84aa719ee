"""The main job with a model API as the teacher: the key, the gate, and what a lost reply leaves."""

import csv
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

import limbeck
from limbeck.cli import run as command
from limbeck.distill.label import label
from limbeck.distill.plan import make_plan
from limbeck.distill.run_file import load_config
from limbeck.distill.smoke import FIRST, hopeless, no_better_than_guessing
from limbeck.errors import TeacherError
from limbeck.ledger import SqliteLedger
from tests.teachers.server import GOOD, ModelServer, Reset, completion, error, saying

KEY = "sk-Zx91-do-not-show-me"
BAD = ("dull", "weak", "cold", "grey")
RUN = """
budget = 130
money = 1.0
out = "run"
onnx = false

[data]
labelled = "labelled.csv"
validation = "validation.csv"
test = "test.csv"
pool = "pool.csv"
text = ["text"]
label = "label"

[teacher]
kind = "endpoint"

[teacher.endpoint]
base_url = "{url}"
model = "words"
api_key_env = "KEY_OF_THE_TEST"
price_in = 1_000_000
price_out = 2_000_000
retries = 2
concurrency = {concurrency}

[student.settings]
buckets = 512

[train]
steps = 8
evaluations = 2
pool_batch = 16
labelled_batch = 8
folds = 2

[objective]
arms = ["labels", "soft_kd"]
"""


def make(folder: Path, url: str, *, concurrency: int = 8) -> Path:
    rng = np.random.default_rng(0)
    for name, count in {"labelled": 24, "validation": 40, "test": 40, "pool": 50}.items():
        with (folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label"][: 1 + (name != "pool")])
            for i in range(count):
                good = bool(rng.integers(2))
                text = f"a {rng.choice(GOOD if good else BAD)} film, {name} {i}"
                writer.writerow([text, "good" if good else "bad"][: 1 + (name != "pool")])
    file = folder / "run.toml"
    file.write_text(RUN.format(url=url, concurrency=concurrency))
    return file


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("KEY_OF_THE_TEST", KEY)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-another-that-nobody-asked-for")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-that-nobody-asked-for")


def check_key_is_nowhere(folder, captured):
    for path in folder.rglob("*"):
        if path.is_file():
            assert KEY.encode() not in path.read_bytes(), path
    assert KEY not in captured.out + captured.err


@pytest.mark.slow
def test_a_whole_run_shows_its_key_to_nobody_but_the_server(tmp_path, capfd):
    """Though the server repeats it in replies, in failures and in what cannot be read."""

    def echo(request):
        place = len(server.requests)
        if place % 7 == 0:
            return error(500, f"bad day for {KEY}")
        if place % 11 == 0:
            return saying(request, f"{KEY} says: maybe", key=KEY)
        if place % 13 == 0:
            return error(400, f"{KEY} may not ask this")
        return completion(request, echo={"Authorization": f"Bearer {KEY}"}, model=f"words {KEY}")

    with ModelServer() as server:
        file = make(tmp_path, server.url)
        # The gate looks at well-behaved answers; what follows is worse.
        server.behave = lambda request: echo(request) if len(server.requests) > 20 else None
        code = command(["distill", str(file), "--yes", "--debug"])
    captured = capfd.readouterr()
    assert code == 0, captured.err
    assert {request.headers["authorization"] for request in server.requests} == {f"Bearer {KEY}"}
    assert not any("openai-organization" in request.headers for request in server.requests)
    assert (tmp_path / "run/report.html").exists()
    check_key_is_nowhere(tmp_path, captured)
    with SqliteLedger(tmp_path / "ledger.sqlite") as ledger:
        assert ledger.spent((tmp_path / "run/run.id").read_text().strip()).failed > 0


def test_a_wrong_key_that_the_server_repeats_is_not_shown(tmp_path, capfd):
    with ModelServer(lambda _: error(401, f"Incorrect API key provided: {KEY}.")) as server:
        code = command(["label", str(make(tmp_path, server.url)), "--yes", "--debug"])
    captured = capfd.readouterr()
    assert code == 1
    assert "the server said 401: Incorrect API key provided: [key]." in captured.err
    check_key_is_nowhere(tmp_path, captured)


def test_without_the_name_of_a_key_none_is_sent(tmp_path):
    with ModelServer() as server:
        config = load_config(make(tmp_path, server.url))
        endpoint = replace(config.teacher.endpoint, api_key_env="")
        label(replace(config, teacher=replace(config.teacher, endpoint=endpoint)))
    assert {request.headers["authorization"] for request in server.requests} == {""}


def stopped(tmp_path, behave, words, **settings):
    """A purchase that the gate ends; gives the server."""
    with ModelServer(behave) as server:
        config = load_config(make(tmp_path, server.url))
        endpoint = replace(config.teacher.endpoint, **settings)
        config = replace(config, teacher=replace(config.teacher, endpoint=endpoint))
        with pytest.raises(TeacherError, match=words):
            label(config)
    return server


def test_first_answers_that_cannot_be_read_end_the_run(tmp_path):
    server = stopped(
        tmp_path,
        lambda r: saying(r, "I would say good") if "1" in r.text else None,
        r"of the first 16 answers could not be used.*not exactly one of the classes.*smoke_gate",
        probabilities="votes",
        votes=1,
    )
    assert len(server.requests) == FIRST


def test_a_server_without_log_probabilities_is_found_out_by_the_gate(tmp_path):
    server = stopped(tmp_path, lambda r: saying(r, "A"), "16 of the first 16.*to votes")
    assert len(server.requests) == FIRST


def turned(request):
    """Takes each class for the other."""
    whole = completion(request)
    for token in whole["choices"][0]["logprobs"]["content"][0]["top_logprobs"]:
        token["token"] = {"A": "B", "B": "A"}[token["token"]]
    return whole


def test_swapped_classes_end_the_run_after_the_first_answers(tmp_path):
    server = stopped(tmp_path, turned, "0 of the first 16 answers on validation rows are right")
    assert len(server.requests) == FIRST


def by_length(request):
    """An opinion that has nothing to do with the label."""
    whole = completion(request)
    (token,) = whole["choices"][0]["logprobs"]["content"]
    first = int(request.text.split()[-1]) % 2
    for place, one in enumerate(token["top_logprobs"]):
        one["logprob"] = -0.1 if place == first else -2.4
    return whole


def test_a_teacher_that_guesses_is_stopped_before_test_and_pool_are_paid_for(tmp_path):
    server = stopped(tmp_path, by_length, "not significantly better than guessing one of 2 classes")
    assert len(server.requests) <= 40
    assert not any("pool" in text or "test" in text for text in server.asked)


def test_the_gate_can_be_left_open(tmp_path):
    with ModelServer(turned) as server:
        config = load_config(make(tmp_path, server.url))
        endpoint = replace(config.teacher.endpoint, smoke_gate=False)
        done = label(replace(config, teacher=replace(config.teacher, endpoint=endpoint)))
    assert done.pool_answers == 50


def test_limits_prices_and_address_may_change_in_the_middle_of_a_run(tmp_path):
    with ModelServer() as server:
        config = load_config(make(tmp_path, server.url))
        server.behave = lambda _: error(403) if len(server.requests) > 60 else None
        with pytest.raises(TeacherError, match="403"):
            label(config)
    with ModelServer() as second:
        changes = {"base_url": second.url, "concurrency": 2, "price_in": 5, "retries": 0}
        options = [f"--teacher.endpoint.{name}={value}" for name, value in changes.items()]
        done = label(load_config(tmp_path / "run.toml", options))
    assert done.pool_answers == 50
    assert len(server.asked[:60]) + len(second.asked) == 130
    assert not set(server.asked[:60]) & set(second.asked)


def test_a_reply_that_cannot_be_read_is_paid_for_once_in_a_run(tmp_path):
    """By the gate, by the purchase of its split, and by those that go on after a stop."""

    def behave(request):
        if denies and len(server.requests) > 100:
            return error(401)
        unread = request.text.endswith(("validation 3", "validation 30", "test 7", "pool 1"))
        return saying(request, "perhaps") if unread else None

    denies = True
    with ModelServer(behave) as server:
        file = make(tmp_path, server.url, concurrency=1)
        # Only if pool 1 was unreadable before the stop does the test say anything about a resume.
        with pytest.raises(TeacherError, match="401"):
            label(load_config(file))
        denies, before = False, len(server.requests)
        first = set(server.asked[:100])
        assert any(text.endswith("pool 1") for text in first)
        plan = make_plan(load_config(file), trains=False)
        assert (plan.validation, plan.test, plan.pool) == (0, 0, 130 - len(first))
        done = label(load_config(file))
        assert not first & set(server.asked[before:])
        assert len(set(server.asked)) == 130
        assert done.pool_answers == 49
        assert done.spending.failed == 4
        assert [tally.failed for tally in done.tallies] == [0, 0, 0]
        plan = make_plan(load_config(file), trains=False)
        assert (plan.validation, plan.test, plan.pool, plan.owned) == (0, 0, 0, 126)
        # Another folder is another run, which may ask once more.
        asked = len(server.requests)
        again = label(load_config(file, ["--out", str(tmp_path / "again")]))
        assert again.spending.failed == 4
        assert len(server.requests) == asked + 4


def test_the_gate_stays_shut_when_the_same_command_runs_again(tmp_path):
    with ModelServer(lambda r: saying(r, "perhaps")) as server:
        config = load_config(make(tmp_path, server.url))
        for _ in range(2):
            with pytest.raises(TeacherError, match=f"{FIRST} of the first {FIRST} answers"):
                label(config)
    assert len(server.requests) == FIRST


def test_refusals_that_cost_nothing_are_asked_about_again_after_a_stop(tmp_path):
    def behave(request):
        return error(400, "not now") if denies and "pool" in request.text else None

    denies = True
    with ModelServer(behave) as server:
        config = load_config(make(tmp_path, server.url, concurrency=1), ["--budget", "170"])
        with pytest.raises(TeacherError, match="in a row got no reply"):
            label(config)
        denies = False
        done = label(config)
    assert done.pool_answers == 50


def test_lost_replies_are_told_of(tmp_path):
    def lose(request):
        if request.time == 0 and "pool 7" in request.text:
            raise Reset

    with ModelServer(lose) as server:
        done = label(load_config(make(tmp_path, server.url), ["--budget", "140"]))
    assert done.pool_answers == 50
    assert done.spending.unknown == 1
    assert "1 unknown (perhaps billed)" in done.text()


def test_a_question_that_never_got_a_reply_is_no_failure_in_the_table_nor_in_the_ledger(tmp_path):
    def lose(request):
        if request.text.endswith("pool 7"):
            raise Reset

    with ModelServer(lose) as server:
        done = label(load_config(make(tmp_path, server.url), ["--budget", "140"]))
    pool = next(line.split() for line in done.text().splitlines() if line.startswith("pool"))
    assert pool == ["pool", "50", "0", "49", "0", "1"]
    assert "0 failed, 3 unknown (perhaps billed)" in done.text()
    assert (done.spending.failed, done.spending.unknown) == (0, 3)
    events = (tmp_path / "run/events.jsonl").read_text()
    assert "pool: 49 answers bought, 0 were in the ledger, 0 failed, 1 got no reply" in events


def test_a_budget_that_lost_replies_have_used_up_is_told_of_and_can_be_raised(tmp_path):
    def lose(request):
        if request.time == 0 and "pool 7" in request.text:
            raise Reset

    with ModelServer(lose) as server:
        file = make(tmp_path, server.url)
        first = label(load_config(file))
        assert first.short == (
            "the budget of 130 answers ended: 49 of 50 pool rows that were to be asked about have "
            "an answer"
        )
        assert first.open
        plan = make_plan(load_config(file), trains=False)
        assert (plan.pool, plan.price.micros) == (0, 0)
        assert "leaves 0 for the pool; raise it to buy the other 1" in plan.text()
        assert make_plan(load_config(file, ["--budget", "131"]), trains=False).pool == 1
        done = label(load_config(file, ["--budget", "131"]))
    assert (done.pool_answers, done.short, done.open) == (50, "", False)


def test_the_early_look_hardly_ever_stops_a_good_teacher_and_finds_a_bad_one_out():
    """By the binomial distribution: each number of right answers, weighed with its probability."""
    for classes in (2, 3, 5, 10, 26):
        chance = 1 / classes

        def stops(accuracy, chance=chance):
            return sum(
                binom.pmf(right, FIRST, accuracy)
                for right in range(FIRST + 1)
                if no_better_than_guessing(right, FIRST, chance) and hopeless(right, FIRST, chance)
            )

        assert stops((1 + chance) / 2) < 0.01
        assert stops(0.95) < 1e-6
        assert stops(0.1 * chance) > 0.99


def test_the_late_look_lets_a_guesser_pass_one_time_in_twenty_at_most():
    for count in (20, 100, 1000):
        passes = sum(
            binom.pmf(right, count, 0.5)
            for right in range(count + 1)
            if not no_better_than_guessing(right, count, 0.5)
        )
        assert 0.005 < passes <= 0.05


@pytest.mark.slow
def test_killed_at_random_moments_it_pays_for_nothing_twice(tmp_path):
    root = Path(limbeck.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "tests.distill.endpoint_kills", str(tmp_path), "20", "0"],
        cwd=root,
        env=os.environ | {"PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["kills"] == 20
    assert seen["during"] >= 3
    assert seen["asked_again"] == 0
    assert max(seen["unknown"]) <= 8  # what can be in flight
    assert seen["unanswered"] == 0
    assert seen["over"] == seen["unnamed"] == 0
