"""Purchases from a server that misbehaves: right answers, or one clear sentence."""

import asyncio
import contextlib
import json
import math
import threading
import time
from collections import Counter
from functools import partial

import numpy as np
import pytest

from limbeck.data.dataset import Dataset
from limbeck.data.schema import Schema
from limbeck.engines import asker, purchase
from limbeck.engines import local as engine
from limbeck.engines.retry import Backoff
from limbeck.errors import LimbeckWarning, TeacherError
from limbeck.ledger import Budget, SqliteLedger
from limbeck.teachers import Money
from limbeck.teachers.client import Client, Secret
from limbeck.teachers.endpoint import EndpointTeacher
from limbeck.teachers.endpoint_config import EndpointConfig
from limbeck.teachers.remote import Denied, Lost, Refused, Rejected
from tests.teachers.server import (
    Hang,
    ModelServer,
    Reset,
    Slowly,
    by_hash,
    completion,
    error,
    response,
    saying,
)

SCHEMA = Schema(("text",), (), (), None, ("no", "maybe", "yes"))
TEXTS = [f"text {i}" for i in range(24)]


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(asker, "Backoff", partial(Backoff, first_seconds=0.01, most_seconds=0.05))


@pytest.fixture
def ledger(tmp_path):
    with SqliteLedger(tmp_path / "ledger.sqlite") as ledger:
        yield ledger


def teacher_at(url, **settings):
    usual = {"base_url": url, "model": "hash", "concurrency": 6, "retries": 3,
             "timeout_seconds": 20.0, "price_in": 1_000_000, "price_out": 2_000_000,
             "shuffle_classes": True}  # fmt: skip
    return EndpointTeacher(EndpointConfig(**usual | settings), SCHEMA)


def rows_of(texts):
    return Dataset.from_table({"text": list(texts)}, SCHEMA), np.arange(len(texts))


def buy(ledger, teacher, texts=TEXTS, *, queries=10_000, money=None, **settings):
    budget = Budget(queries, None if money is None else Money(money))
    settings = {"run": "run", "budget": budget} | settings
    return purchase(teacher, ledger, *rows_of(texts), **settings)


def check_answers(ledger, teacher, report, texts=TEXTS):
    """Every answer that is served is what the model thinks of just this text."""
    for i, text in enumerate(texts):
        if report.answered[i]:
            got = ledger.answers(teacher.fingerprint, report.ids[i : i + 1]).probs[0]
            assert got.tolist() == pytest.approx(by_hash(text, SCHEMA.classes), abs=1e-5)


def bought_well(behave, ledger, *, unknown=0, **settings):
    """Buy from a server that misbehaves now and then; all must end well."""
    with ModelServer(behave) as server:
        teacher = teacher_at(server.url, **settings)
        report = buy(ledger, teacher)
    assert report.answered.all()
    check_answers(ledger, teacher, report)
    assert (report.bought, report.failed) == (len(TEXTS), 0)
    assert (report.spent.unknown, report.spent.reserved) == (unknown, 0)
    return server, report


def refused(words, ledger, teacher, texts=TEXTS):
    """A purchase that ends with one sentence."""
    with pytest.raises(TeacherError, match=words) as caught:
        buy(ledger, teacher, texts)
    assert "\n" not in str(caught.value)
    assert ledger.spent("run").reserved == 0


def first(reply):
    """Misbehave the first time that a question is asked."""
    return lambda request: reply(request) if request.time == 0 else None


def raising(kind):
    def behave(_):
        raise kind

    return behave


def test_every_question_is_asked_once_and_settled_at_its_real_price(ledger):
    server, report = bought_well(None, ledger)
    assert Counter(server.asked) == Counter(TEXTS)
    assert server.most_at_once <= 6
    usage = [completion(request)["usage"] for request in server.requests]
    assert report.spent.money == Money(
        sum(one["prompt_tokens"] + 2 * one["completion_tokens"] for one in usage)
    )


def test_raw_replies_and_versions_are_kept(ledger, tmp_path):
    with ModelServer() as server:
        teacher = teacher_at(server.url)
        report = buy(ledger, teacher, TEXTS[:3])
    assert ledger.versions(teacher.fingerprint) == {"hash-2026-01 fp_1": 3}
    import sqlite3

    with sqlite3.connect(tmp_path / "ledger.sqlite") as connection:
        raw = dict(connection.execute("SELECT question, raw FROM answers"))
    assert {bytes(key) for key in report.ids} == set(raw)
    for line in raw.values():
        assert json.loads(line)["choices"][0]["logprobs"]


def test_answers_that_are_owned_are_not_asked_for(ledger):
    with ModelServer() as server:
        teacher = teacher_at(server.url)
        buy(ledger, teacher, TEXTS[:10])
        report = buy(ledger, teacher)
    assert (report.cached, report.bought) == (10, 14)
    assert Counter(server.asked) == Counter(TEXTS)


@pytest.mark.parametrize(
    ("code", "headers"),
    [(429, {}), (500, {}), (503, {}), (429, {"Retry_After": "0.2"}), (500, {"Retry_After": "0.2"}),
     (429, {"Retry_After_Ms": "200"})],
)  # fmt: skip
def test_a_busy_server_is_asked_again_for_nothing(ledger, code, headers):
    texts = TEXTS[:6]
    with ModelServer(first(lambda _: error(code, **headers))) as server:
        teacher = teacher_at(server.url)
        report = buy(ledger, teacher, texts)
    assert report.answered.all()
    check_answers(ledger, teacher, report, texts)
    assert report.spent.queries == len(texts)  # no new place in the budget
    for text in texts:
        at = [request.at for request in server.requests if request.text == text]
        assert len(at) == 2
        assert at[1] - at[0] >= (0.2 if headers else 0.0)


def test_a_date_to_wait_for_is_read_by_the_clock_of_the_server(ledger, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 9e9)  # this machine's is far ahead
    headers = {"Date": "Wed, 15 Jul 2026 09:00:00 GMT"}
    headers["Retry_After"] = "Wed, 15 Jul 2026 09:00:01 GMT"
    with ModelServer(first(lambda _: error(429, **headers))) as server:
        report = buy(ledger, teacher_at(server.url), TEXTS[:1])
    assert report.answered.all()
    assert server.requests[1].at - server.requests[0].at >= 1.0


def test_a_busy_server_is_left_alone_by_all(ledger):
    """One 429 holds back every question, not just the one that met it."""
    with ModelServer(lambda r: error(429, Retry_After="0.3") if len(server.requests) == 1 else None
                     ) as server:  # fmt: skip
        report = buy(ledger, teacher_at(server.url, concurrency=2))
    assert report.answered.all()
    at = [request.at for request in server.requests]
    # Two requests may have left before the refusal came back.
    assert at[3] - at[0] >= 0.3


def test_a_server_that_lets_few_through_is_asked_until_all_are_answered(ledger):
    """Most questions are refused more often than they have tries, but others get their replies."""
    let_through = [0.0]

    def few(request):
        if request.at - let_through[-1] < 0.03:
            return error(429, Retry_After="0.03")
        let_through.append(request.at)

    with ModelServer(few) as server:
        report = buy(ledger, teacher_at(server.url, retries=1, concurrency=24))
    assert report.answered.all()
    assert max(server.counts.values()) > 3
    assert report.spent.queries == len(TEXTS)


def test_a_server_that_is_busy_for_all_is_given_up(ledger):
    with ModelServer(lambda _: error(429, "come back tomorrow")) as server:
        refused(r"in a row got no reply.*come back tomorrow", ledger, teacher_at(server.url))
    assert max(server.counts.values()) == 1 + 3
    assert ledger.spent("run").queries == 0


def test_a_wait_of_hours_ends_the_run(ledger):
    with ModelServer(lambda _: error(429, "daily limit", Retry_After="86400")) as server:
        refused(r"daily limit.* wait 1,440 minutes", ledger, teacher_at(server.url))
    assert ledger.spent("run").queries == 0


NOT_BILLED_AND_TRIED_AGAIN = (409, 425, 429, 500, 503, 529)
MAYBE_BILLED = (408, 501, 502, 504, 507, *range(520, 528), 530, 598, 599)
NOT_BILLED_AND_FAILED = (400, 413, 415, 418, 422)
NOT_BILLED_AND_OVER = (401, 402, 403, 404, 405)
MEANINGS = (
    dict.fromkeys(NOT_BILLED_AND_TRIED_AGAIN, Refused)
    | dict.fromkeys(MAYBE_BILLED, Lost)
    | dict.fromkeys(NOT_BILLED_AND_FAILED, Rejected)
    | dict.fromkeys(NOT_BILLED_AND_OVER, Denied)
)


@pytest.mark.parametrize("retry_after", [{}, {"Retry_After": "7"}])
def test_each_status_has_one_meaning_for_money(retry_after):
    """With and without `Retry-After`, which says when to come back and nothing of a bill."""

    async def meet(url, codes):
        config = EndpointConfig(base_url=url, model="hash")
        met = {}
        async with Client(config, Secret("")) as client:
            for code in codes:
                server.behave = lambda _, code=code: error(code, **retry_after)
                try:
                    await client.post({"model": "hash", "messages": [{"content": "x"}]})
                except (Refused, Lost, Rejected, Denied) as end:
                    met[code] = type(end)
        return met

    with ModelServer() as server:
        assert asyncio.run(meet(server.url, MEANINGS)) == MEANINGS


def test_a_gateways_error_after_the_work_was_done_never_passes_the_money(ledger):
    """The model behind it bills every request, and the gateway loses each first reply."""
    with ModelServer(first(lambda _: error(502))) as server:
        teacher = teacher_at(server.url)
        data, rows = rows_of(TEXTS)
        money = int(teacher.quote_each(data.take(rows)).max()) * 20
        report = buy(ledger, teacher, money=money)
    billed = sum(
        one["prompt_tokens"] + 2 * one["completion_tokens"]
        for one in (completion(request)["usage"] for request in server.requests)
    )
    assert report.exhausted
    assert billed <= report.spent.money.micros <= money
    assert report.spent.queries == len(server.requests)


LOSSES = {
    "reset": raising(Reset),
    "truncated": lambda r: response(json.dumps(completion(r))[:80], length=99999),
    "truncated and then closed": lambda r: response(b'{"id": "x", "cho', length=99999),
    "not JSON": lambda _: response("<html>Bad gateway</html>"),
    "half of it": lambda r: response(json.dumps(completion(r))[:-40]),
    "not text": lambda _: response(b"\xff\xfe{}"),
    "brackets without end": lambda _: response("[" * 200_000),
    "empty": lambda _: response(b""),
    "a gateway's time-out": lambda _: error(504),
    "a gateway that got no good reply": lambda _: error(502),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_what_may_have_been_billed_is_held_and_asked_again_in_a_new_place(ledger, loss):
    """Half of the questions lose their first reply."""
    lose = LOSSES[loss]
    _, report = bought_well(
        first(lambda r: lose(r) if int(r.text.split()[1]) % 2 else None), ledger, unknown=12
    )
    assert report.spent.queries == len(TEXTS) + 12
    assert report.spent.money.micros > 12 * 100  # their worst prices stay


@pytest.mark.parametrize("code", [408, 502, 504])
def test_a_gateway_that_says_when_to_come_back_is_asked_then(ledger, code):
    with ModelServer(first(lambda _: error(code, Retry_After="0.4"))) as server:
        report = buy(ledger, teacher_at(server.url), TEXTS[:3])
    assert report.answered.all()
    assert report.spent.unknown == 3
    for text in TEXTS[:3]:
        at = [request.at for request in server.requests if request.text == text]
        assert at[1] - at[0] >= 0.4  # without the header it would be 0.05 at most


def test_a_gateway_that_says_to_wait_for_hours_ends_the_run_and_what_it_may_bill_is_held(ledger):
    with ModelServer(lambda _: error(504, "gone fishing", Retry_After="86400")) as server:
        refused(r"gone fishing.* wait 1,440 minutes", ledger, teacher_at(server.url))
    spent = ledger.spent("run")
    assert spent.unknown == spent.queries == len(server.requests) <= 6
    assert spent.money.micros > 0


def test_a_hang_ends_at_the_time_out(ledger):
    _, report = bought_well(
        first(lambda r: raising(Hang)(r) if r.text == "text 3" else None),
        ledger,
        unknown=1,
        timeout_seconds=0.5,
    )
    assert report.spent.queries == len(TEXTS) + 1


def test_a_server_that_dribbles_is_cut_off_too(ledger):
    """Each byte comes in time, but the reply never ends."""

    def dribble(request):
        if request.text == "text 3" and request.time == 0:
            return Slowly(response(completion(request)), seconds_a_byte=0.05)
        return None

    bought_well(dribble, ledger, unknown=1, timeout_seconds=0.6)


def test_a_question_that_is_always_lost_is_given_up_and_the_others_are_not(ledger):
    with ModelServer(lambda r: raising(Reset)(r) if r.text == "text 3" else None) as server:
        teacher = teacher_at(server.url, retries=2)
        report = buy(ledger, teacher)
    assert report.answered.tolist() == [text != "text 3" for text in TEXTS]
    assert (report.bought, report.failed, report.unanswered) == (23, 0, 1)
    # The ledger says the same: no failure, and each of the three tries may have been billed.
    assert (report.spent.failed, report.spent.unknown) == (0, 3)
    assert server.counts["text 3"] == 3
    assert "connection broke" in report.failures[0]


def test_a_question_that_a_server_never_takes_is_given_back_and_the_others_are_bought(ledger):
    def behave(request):
        return error(500, "not this one") if request.text == "text 3" and refuses else None

    refuses = True
    with ModelServer(behave) as server:
        teacher = teacher_at(server.url, retries=2)
        report = buy(ledger, teacher)
        assert (report.bought, report.failed, report.unanswered) == (23, 0, 1)
        assert report.failures == ("the server said 500: not this one",)
        assert server.counts["text 3"] == 3
        assert report.spent.queries == 23  # nobody bills what was not done
        refuses = False
        assert buy(ledger, teacher, queries=24).answered.all()


def test_a_question_that_is_refused_for_good_fails_for_nothing(ledger):
    with ModelServer(lambda r: error(400, "too long") if r.text == "text 3" else None) as server:
        teacher = teacher_at(server.url)
        report = buy(ledger, teacher)
    assert report.answered.sum() == 23
    assert report.failures == ("the server said 400: too long",)
    assert server.counts["text 3"] == 1
    assert report.spent.unknown == 0
    check_answers(ledger, teacher, report)


@pytest.mark.parametrize(
    "said", ["perhaps", "The answer is yes", "yes and no", "", None, "YES!", "はい"]
)
def test_what_is_no_class_is_paid_for_and_never_served(ledger, said):
    with ModelServer(lambda r: saying(r, said) if r.text == "text 3" else None) as server:
        teacher = teacher_at(server.url, probabilities="votes", votes=1)
        report = buy(ledger, teacher)
    assert report.answered.tolist() == [text != "text 3" for text in TEXTS]
    assert "is not exactly one of the classes" in report.failures[0]
    assert server.counts["text 3"] == 1
    assert report.spent.failed == 1
    assert report.spent.unknown == 0


@pytest.mark.parametrize(
    "form", [r"abcd\u002Befgh/1234=xyz", r"\u0061bcd+efgh\/1234\u003dxyz", "abcd%2Befgh/1234=xyz"]
)
def test_a_key_that_comes_back_escaped_is_in_no_ledger_and_no_message(
    ledger, tmp_path, monkeypatch, form
):
    key = "abcd+efgh/1234=xyz"
    monkeypatch.setenv("KEY_OF_THE_TEST", key)

    def echo(request):
        return response(json.dumps(saying(request, "KEY")).replace("KEY", form))

    with ModelServer(echo) as server:
        settings = {"probabilities": "votes", "votes": 1, "api_key_env": "KEY_OF_THE_TEST"}
        report = buy(ledger, teacher_at(server.url, **settings), TEXTS[:3])
    assert server.requests[0].headers["authorization"] == f"Bearer {key}"
    assert report.failures == ("the reply '[key]' is not exactly one of the classes",) * 3
    ledger.close()
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"[key]" in kept
    assert b"efgh" not in kept


def test_names_in_another_dress_and_script_are_read(ledger):
    schema = Schema(("text",), (), (), None, ("für", "gegen"))
    with ModelServer(lambda r: saying(r, ' "FU\u0308R". ')) as server:
        config = EndpointConfig(base_url=server.url, model="hash", probabilities="votes", votes=1)
        teacher = EndpointTeacher(config, schema)
        data = Dataset.from_table({"text": ["ein Satz — ☃ 语"]}, schema)
        report = purchase(teacher, ledger, data, np.arange(1), run="run", budget=Budget(5))
    assert server.asked == ["ein Satz — ☃ 语"]
    assert ledger.answers(teacher.fingerprint, report.ids).probs.tolist() == [[1.0, 0.0]]


def test_missing_log_probabilities_end_the_run_and_name_the_other_way(ledger):
    texts = [f"text {i}" for i in range(60)]
    with ModelServer(lambda r: saying(r, "A")) as server:
        refused(r"in a row could not be read.*to votes", ledger, teacher_at(server.url), texts)
    spent = ledger.spent("run")
    assert spent.answered == 0
    assert spent.reserved == spent.unknown == 0
    assert len(server.requests) < 60


@pytest.mark.parametrize("concurrency", [6, 64])
def test_replies_that_come_twice_never_answer_another_question(ledger, concurrency):
    """The second copy waits in the connection, where the next question would find it."""
    texts = [f"text {i}" for i in range(4 * concurrency)]

    def twice(request):
        whole = response(completion(request))
        return whole + whole

    with ModelServer(twice) as server:
        teacher = teacher_at(server.url, concurrency=concurrency)
        report = buy(ledger, teacher, texts)
    assert report.answered.all()
    check_answers(ledger, teacher, report, texts)
    # What was in flight when the first copy was found; from then on there is nothing to lose.
    assert 1 <= report.spent.unknown <= concurrency


def test_a_request_gets_a_pool_of_connections_that_is_not_full():
    """However many there are, all are sent at once, and pools are few; none is left as taken."""

    async def ask(url, count):
        async with Client(EndpointConfig(base_url=url, model="hash"), Secret("")) as client:
            bodies = [
                {"model": "hash", "messages": [{"content": "- a"}, {"content": f"{i}"}]}
                for i in range(count)
            ]
            await asyncio.gather(*map(client.post, bodies))
            assert {pool.on_their_way for pool in client._pools} == {0}
            return len(client._pools)

    async def when_all_are_there(_):
        while len(server.requests) < count:
            await asyncio.sleep(0.01)

    for count, pools in ((1, 1), (16, 1), (17, 2), (100, 4)):
        with ModelServer(when_all_are_there) as server:
            assert asyncio.run(ask(server.url, count)) == pools


def test_parameters_that_only_this_server_knows_are_sent(ledger):
    with ModelServer() as server:
        buy(ledger, teacher_at(server.url, extra_body='{"top_k": 5}'), TEXTS[:1])
    assert server.requests[0].body["top_k"] == 5


@pytest.mark.parametrize("key", ["", "abcd-efgh-1234"])
def test_no_key_that_lies_in_the_environment_is_sent(ledger, monkeypatch, key):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-another")
    monkeypatch.setenv("OPENAI_ADMIN_KEY", "sk-of-an-administrator")
    monkeypatch.setenv("KEY_OF_THE_TEST", key)
    with ModelServer() as server:
        buy(ledger, teacher_at(server.url, api_key_env="KEY_OF_THE_TEST" if key else ""), TEXTS[:1])
    assert server.requests[0].headers["authorization"] == (f"Bearer {key}" if key else "")


def test_replies_of_a_server_that_gives_all_the_same_name_are_taken(ledger):
    bought_well(lambda r: completion(r, id="same"), ledger)


def test_a_wrong_key_ends_the_run_at_once(ledger):
    with ModelServer(lambda _: error(401, "no such key")) as server:
        refused(
            r"the server said 401: no such key; correct the key", ledger, teacher_at(server.url)
        )
    assert len(server.requests) <= 6
    spent = ledger.spent("run")
    assert (spent.queries, spent.money.micros) == (0, 0)


def test_an_account_without_money_is_not_tried_again(ledger):
    with ModelServer(lambda _: error(429, "pay first", kind="insufficient_quota")) as server:
        refused(r"pay first", ledger, teacher_at(server.url))
    assert len(server.requests) <= 6


def test_what_came_back_before_a_refusal_of_all_is_kept(ledger):
    with ModelServer(lambda _: error(403) if len(server.requests) > 10 else None) as server:
        refused("403", ledger, teacher_at(server.url))
    spent = ledger.spent("run")
    assert (spent.answered, spent.reserved, spent.unknown) == (10, 0, 0)


def test_nobody_at_the_address_ends_the_run_without_a_cost(ledger):
    with ModelServer() as server:
        pass
    dead = teacher_at(server.url, retries=1)
    refused(r"questions in a row got no reply.*cannot be reached", ledger, dead)
    spent = ledger.spent("run")
    # Where nobody was reached, nothing of the budget is used up either.
    assert (spent.queries, spent.money.micros) == (0, 0)


def test_a_bill_above_the_worst_case_is_settled_and_ends_the_run(ledger):
    def dear(request):
        usage = {"prompt_tokens": 5000, "completion_tokens": 1}
        return completion(request, usage=usage) if len(server.requests) == 5 else None

    with ModelServer(dear) as server:
        refused(r"the server billed 5002 millionths.*run stops", ledger, teacher_at(server.url))
    spent = ledger.spent("run")
    assert spent.money.micros > 5002
    assert spent.reserved == spent.unknown == 0
    assert len(server.requests) < 5 + 2 * 6


@pytest.mark.parametrize(
    "usage",
    [None, {}, {"prompt_tokens": "many"}, {"prompt_tokens": -1},
     {"prompt_tokens": 10**30, "completion_tokens": 10**30}, {"prompt_tokens": True}],
)  # fmt: skip
def test_a_server_that_does_not_count_is_taken_to_have_used_the_most(ledger, usage):
    with ModelServer(lambda r: completion(r, usage=usage)) as server:
        teacher = teacher_at(server.url)
        report = buy(ledger, teacher)
    data, rows = rows_of(TEXTS)
    assert report.answered.all()
    assert report.spent.money == teacher.quote(data.take(rows))


@pytest.mark.parametrize("share", [0.3, 0.9, 1.5, 3.0])
def test_the_budget_in_money_is_never_passed_and_used_to_the_end(ledger, share):
    """Worst prices are several times the real ones; what they leave is spent as well."""
    texts = [f"text {i}" * (1 + i % 7) for i in range(40)]
    with ModelServer() as server:
        teacher = teacher_at(server.url)
        data, rows = rows_of(texts)
        worst = teacher.quote_each(data.take(rows))
        money = int(share * worst.max())
        report = buy(ledger, teacher, texts, money=money)
    assert report.spent.money.micros <= money
    assert report.exhausted
    # It ended because not even the next question's worst price fitted.
    assert money - report.spent.money.micros < worst.max()
    assert len(server.requests) == report.bought


@pytest.mark.parametrize("cap", [0, 1, 5, 6, 7, 23, 24])
def test_the_budget_of_queries_is_reached_and_never_passed(ledger, cap):
    with ModelServer() as server:
        report = buy(ledger, teacher_at(server.url), queries=cap)
    assert len(server.requests) == cap
    assert report.answered.tolist() == [i < cap for i in range(len(TEXTS))]
    assert report.exhausted == (cap < len(TEXTS))


def test_no_more_are_reserved_than_can_be_in_flight(ledger):
    reserved = []
    with ModelServer(delay=0.005) as server:

        def look(done, total, spent):
            reserved.append(ledger.spent("run").reserved)

        server.behave = lambda _: reserved.append(ledger.spent("run").reserved)
        buy(ledger, teacher_at(server.url, concurrency=4), on_progress=look)
    assert max(reserved) == 4


def test_votes_are_asked_for_together(ledger):
    with ModelServer() as server:
        teacher = teacher_at(server.url, probabilities="votes", votes=4)
        report = buy(ledger, teacher)
        assert report.answered.all()
    assert {request.body["n"] for request in server.requests} == {4}
    probs = ledger.answers(teacher.fingerprint, report.ids).probs
    assert set((4 * probs).flatten().tolist()) <= {0.0, 1.0, 2.0, 3.0, 4.0}


def test_votes_that_a_server_leaves_out_are_asked_for_again(ledger):
    def one_only(request):
        whole = completion(request)
        return whole | {"choices": whole["choices"][:1], "id": f"{request.text} {request.time}"}

    with ModelServer(one_only) as server:
        report = buy(ledger, teacher_at(server.url, probabilities="votes", votes=3), TEXTS[:4])
    assert report.answered.all()
    asked_for = [one.body.get("n", 1) for one in server.requests if one.text == TEXTS[0]]
    assert asked_for == [3, 2, 1]
    assert report.spent.queries == 4


def test_votes_one_a_request_lose_only_the_vote_that_is_lost(ledger):
    def lose(request):
        if request.text == "text 0" and request.time == 1:
            raise Reset

    with ModelServer(lose) as server:
        settings = {"probabilities": "votes", "votes": 3, "votes_a_request": 1}
        report = buy(ledger, teacher_at(server.url, **settings), TEXTS[:2])
    assert report.answered.all()
    assert server.counts == {"text 0": 4, "text 1": 3}
    assert (report.spent.answered, report.spent.unknown) == (2, 1)


ONE_A_REQUEST = {"probabilities": "votes", "votes": 5, "votes_a_request": 1}


def bill_of(requests):
    usage = [completion(request)["usage"] for request in requests]
    return sum(one["prompt_tokens"] + 2 * one["completion_tokens"] for one in usage)


def attempts_of(tmp_path):
    """State, price, worst price, raw reply and failure of the attempts, in order."""
    import sqlite3

    with sqlite3.connect(tmp_path / "ledger.sqlite") as connection:
        return connection.execute(
            "SELECT state, price, worst, raw, failure FROM attempts ORDER BY reservation"
        ).fetchall()


@pytest.mark.parametrize("retries", [0, 2])
def test_votes_that_came_before_the_last_try_was_lost_are_kept_with_their_price(
    ledger, tmp_path, retries
):
    def lose(request):
        if request.time >= 3:
            raise Reset

    with ModelServer(lose) as server:
        teacher = teacher_at(server.url, retries=retries, **ONE_A_REQUEST)
        report = buy(ledger, teacher, TEXTS[:1])
    assert len(server.requests) == 3 + 1 + retries
    assert (report.bought, report.failed) == (0, 1)
    assert (report.spent.failed, report.spent.unknown) == (1, retries)
    *held, (state, price, worst, raw, failure) = attempts_of(tmp_path)
    assert [one[0] for one in held] == ["unknown"] * retries
    assert state == "failed"
    paid = [json.loads(line)["id"] for line in raw.split(b"\n")]
    assert paid == [completion(request)["id"] for request in server.requests[:3]]
    assert report.failures == (failure,)
    assert "3 of the question's replies had come; they are kept" in failure
    # The replies count in the first place that was taken for the question, and only there.
    one_request = worst // 5
    assert price == one_request + (0 if retries else bill_of(server.requests[:3]))
    assert bill_of(server.requests) <= report.spent.money.micros == price + retries * worst


def test_votes_that_came_in_an_earlier_place_are_not_paid_for_again(ledger, tmp_path):
    def lose(request):
        if request.time == 3:
            raise Reset

    with ModelServer(lose) as server:
        report = buy(ledger, teacher_at(server.url, **ONE_A_REQUEST), TEXTS[:1])
    assert report.answered.all()
    (first, _, worst, *_), (second, price, *_) = attempts_of(tmp_path)
    assert (first, second) == ("unknown", "settled")
    assert price == bill_of(server.requests[4:])
    assert len(server.requests) == 6
    assert report.spent.money.micros == worst + price


def test_a_lost_request_whose_price_nobody_knows_holds_the_whole_place(ledger, tmp_path):
    def lose(request):
        if request.time == 3:
            raise Reset

    with ModelServer(lose) as server:
        teacher = teacher_at(server.url, retries=0, **ONE_A_REQUEST)
        teacher.most = lambda row, before: None
        buy(ledger, teacher, TEXTS[:1])
    ((state, price, worst, *_),) = attempts_of(tmp_path)
    assert (state, price) == ("failed", worst)


def test_replies_that_cost_all_that_is_held_leave_no_more_for_a_lost_request(ledger, tmp_path):
    """A server that bills each reply too dear does not make the lost one pass the reservation."""

    def dear(request):
        if request.time == 3:
            raise Reset
        return completion(request, usage={"prompt_tokens": prompt, "completion_tokens": 1})

    with ModelServer() as server:
        teacher = teacher_at(server.url, retries=0, **ONE_A_REQUEST)
        data, rows = rows_of(TEXTS[:1])
        prompt = int(teacher.quote_each(data.take(rows))[0]) // 3 - 3
        server.behave = dear
        report = buy(ledger, teacher, TEXTS[:1])
    ((state, price, worst, *_),) = attempts_of(tmp_path)
    assert (state, price) == ("failed", worst)
    assert report.spent.money.micros == worst


def test_a_question_that_is_stopped_between_its_votes_is_asked_again_by_its_run(ledger):
    """What it has cost stays held at its most; it is no failure, which is not asked again."""

    def deny(request):
        return error(401) if request.time == 2 and len(server.requests) == 3 else None

    with ModelServer(deny) as server:
        teacher = teacher_at(server.url, **ONE_A_REQUEST)
        refused("401", ledger, teacher, TEXTS[:1])
        spent = ledger.spent("run")
        assert (spent.failed, spent.unknown) == (0, 1)
        assert bill_of(server.requests[:2]) <= spent.money.micros
        report = buy(ledger, teacher, TEXTS[:1])
    assert report.answered.all()
    assert len(server.requests) == 3 + 5


def test_questions_that_lose_their_last_vote_again_and_again_end_the_run(ledger):
    def lose(request):
        if request.time >= 1:
            raise Reset

    with ModelServer(lose) as server:
        refused("in a row got no reply.*1 of the question", ledger,
                teacher_at(server.url, retries=0, **ONE_A_REQUEST))  # fmt: skip
    spent = ledger.spent("run")
    assert spent.failed >= 8
    assert spent.unknown == 0
    assert bill_of(server.requests) <= spent.money.micros


def test_votes_paid_for_before_a_refusal_are_settled_and_kept(ledger):
    def refuse(request):
        return error(400, "no more") if request.text == "text 0" and request.time == 2 else None

    with ModelServer(refuse) as server:
        settings = {"probabilities": "votes", "votes": 3, "votes_a_request": 1}
        report = buy(ledger, teacher_at(server.url, **settings), TEXTS[:1])
    assert not report.answered.any()
    usage = [completion(request)["usage"] for request in server.requests[:2]]
    paid = sum(one["prompt_tokens"] + 2 * one["completion_tokens"] for one in usage)
    assert report.spent.money.micros == paid
    assert report.spent.failed == 1


def test_another_version_under_way_is_warned_of(ledger):
    def newer(request):
        return completion(request, model="hash-2026-02") if len(server.requests) > 8 else None

    with ModelServer(newer) as server:
        teacher = teacher_at(server.url, concurrency=1)
        with pytest.warns(LimbeckWarning, match=r"2026-02.*2026-01"):
            buy(ledger, teacher)
    assert ledger.versions(teacher.fingerprint) == {
        "hash-2026-01 fp_1": 8, "hash-2026-02 fp_1": 16,
    }  # fmt: skip


def test_another_version_since_the_last_purchase_is_warned_of(ledger):
    with ModelServer() as server:
        teacher = teacher_at(server.url)
        buy(ledger, teacher, TEXTS[:2])
        server.behave = lambda r: completion(r, model="hash-2026-02")
        with pytest.warns(LimbeckWarning, match="2026-02"):
            buy(ledger, teacher, TEXTS[:4])


def test_an_interrupt_records_what_came_back_and_gives_back_what_was_not_sent(ledger, monkeypatch):
    monkeypatch.setattr(engine, "INTERRUPT_GRACE_SECONDS", 0.3)
    calls = []

    def progress(done, total, spent):
        calls.append(done)
        if len(calls) == 2:
            raise KeyboardInterrupt

    def behave(request):
        if request.text in ("text 3", "text 4"):
            raise Hang

    monkeypatch.setattr("limbeck.engines.asynchronous._TELL_SECONDS", 0.0)
    with ModelServer(behave) as server:
        teacher = teacher_at(server.url, concurrency=5)
        with pytest.raises(KeyboardInterrupt):
            buy(ledger, teacher, on_progress=progress)
    spent = ledger.spent("run")
    assert (spent.reserved, spent.unknown) == (0, 2)
    assert spent.answered >= 3
    assert spent.answered + 2 == len(server.requests)


def test_stop_ends_after_what_is_in_flight(ledger):
    with ModelServer() as server:
        report = buy(ledger, teacher_at(server.url), stop=lambda: len(server.requests) >= 8)
    assert report.stopped
    assert report.bought == len(server.requests) < len(TEXTS)
    assert report.spent.reserved == 0


def test_two_purchases_at_once_ask_each_question_once(ledger):
    reports = {}
    with ModelServer(delay=0.01) as server:
        teacher = teacher_at(server.url)

        def work(name, texts):
            reports[name] = buy(ledger, teacher, texts, run=name)

        threads = [
            threading.Thread(target=work, args=("up", TEXTS)),
            threading.Thread(target=work, args=("down", TEXTS[::-1])),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert Counter(server.asked) == Counter(TEXTS)
    for report in reports.values():
        assert report.answered.all()
        assert report.bought + report.cached == len(TEXTS)


def test_a_ledger_that_breaks_down_loses_nothing_that_was_sent(ledger, monkeypatch):
    """The disk fills up in the middle: what is in flight is recorded when there is room again."""
    commits = 0
    commit = SqliteLedger._commit

    def failing(self, connection):
        nonlocal commits
        commits += 1
        if commits == 4:
            raise OSError("disk full")
        commit(self, connection)

    with ModelServer() as server:
        teacher = teacher_at(server.url)
        monkeypatch.setattr(SqliteLedger, "_commit", failing)
        with pytest.raises(OSError, match="disk full"):
            buy(ledger, teacher)
        assert ledger.spent("run").reserved == 0
        assert ledger.spent("run").answered == len(server.requests)
        report = buy(ledger, teacher)
    assert report.answered.all()
    assert Counter(server.asked) == Counter(TEXTS)


def test_a_question_that_is_held_before_it_has_begun_comes_back():
    """The two calls may reach the asking thread in one turn of its loop."""
    with ModelServer() as server, asker.Asker(teacher_at(server.url)) as asking:
        turn = threading.Event()
        asking._call(turn.wait)  # so that both calls wait for the same turn
        asking.ask([asker.Question(b"0" * 16, {"text": "a"}, 1, 1)])
        asking.hold()
        turn.set()
        (outcome,) = asking.take(10.0)
        assert (outcome.end, server.requests) == ("returned", [])


@pytest.mark.parametrize("broken", range(1, 12))
def test_a_ledger_that_breaks_down_leaves_no_question_in_flight(ledger, monkeypatch, broken):
    """Lost questions get a new place in the very transaction that records the loss of the old."""
    commits = 0
    commit = SqliteLedger._commit

    def failing(self, connection):
        nonlocal commits
        commits += 1
        if commits == broken:
            raise OSError("disk full")
        commit(self, connection)

    def lose(request):
        if request.time == 0:
            raise Reset

    with ModelServer(lose) as server:
        teacher = teacher_at(server.url, concurrency=3)
        monkeypatch.setattr(SqliteLedger, "_commit", failing)
        with contextlib.suppress(OSError):
            buy(ledger, teacher, TEXTS[:6])
        monkeypatch.setattr(SqliteLedger, "_commit", commit)
        spent = ledger.spent("run")
        assert spent.reserved == 0
        assert spent.unknown + spent.answered == len(server.requests)
        assert bill_of(server.requests) <= spent.money.micros
        report = buy(ledger, teacher, TEXTS[:6])
    assert report.answered.all()
    check_answers(ledger, teacher, report, TEXTS[:6])


def test_asking_a_batch_by_hand_gives_the_same_answers():
    with ModelServer() as server:
        teacher = teacher_at(server.url)
        data, rows = rows_of(TEXTS)
        ids = data.content_ids
        answers, ok = teacher.parse(teacher.ask(ids, data.take(rows)))
    assert ok.all()
    for text, got in zip(TEXTS, answers.probs.tolist(), strict=True):
        assert got == pytest.approx(by_hash(text, SCHEMA.classes), abs=1e-5)


def test_probabilities_are_those_of_the_model_to_the_last_bit_of_float32(ledger):
    with ModelServer() as server:
        teacher = teacher_at(server.url)
        report = buy(ledger, teacher, TEXTS[:1])
    got = ledger.answers(teacher.fingerprint, report.ids).probs[0]
    assert math.isclose(float(got.double().sum()), 1.0, abs_tol=1e-6)
