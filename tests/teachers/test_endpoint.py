"""The teacher behind a server: its settings, its fingerprint, its quotes, and its key."""

import builtins
import json
import pickle
import sys
from dataclasses import fields, replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.data.schema import Schema
from limbeck.distill.folder import to_toml
from limbeck.distill.run_file import load_config
from limbeck.errors import ConfigError, MissingExtraError
from limbeck.teachers import Replies, TeacherConfig, build
from limbeck.teachers.client import HIDDEN, Secret
from limbeck.teachers.endpoint import EndpointTeacher
from limbeck.teachers.endpoint_config import FREE, EndpointConfig
from limbeck.teachers.remote import RemoteTeacher

SCHEMA = Schema(("text",), ("size",), (), None, ("no", "maybe", "yes"))
KEY = 'sk-very/secret"key'
CONFIG = EndpointConfig(base_url="http://localhost:1/v1", model="m")


def teacher(schema=SCHEMA, **settings):
    return EndpointTeacher(replace(CONFIG, **settings), schema)


def rows(*texts):
    return pa.RecordBatch.from_pydict(
        {"text": pa.array(texts, pa.large_string()), "size": [1.0] * len(texts)}
    )


def test_it_is_asked_one_question_at_a_time():
    assert isinstance(teacher(), RemoteTeacher)
    assert teacher(concurrency=7).limits.concurrency == 7


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"base_url": "localhost:8000"}, "must begin with http"),
        ({"base_url": "https://user:pass@host/v1"}, "where secrets hide"),
        ({"base_url": "https://host/v1?api_key=abc"}, "where secrets hide"),
        ({"base_url": "http://[::1"}, "cannot be read"),
        ({"api_key_env": "sk-abc-123"}, "name of an environment"),
        ({"votes": 0}, "votes=0"),
        ({"votes": 129}, "votes=129"),
        ({"votes_a_request": -1}, "votes_a_request=-1"),
        ({"top_logprobs": 21}, "top_logprobs=21"),
        ({"temperature": -0.1}, "temperature=-0.1"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"max_tokens": -1}, "max_tokens=-1"),
        ({"extra_body": "{"}, "is not JSON"),
        ({"extra_body": "[1]"}, "must be a JSON object"),
        ({"extra_body": '{"model": "x"}'}, "sets model"),
        ({"extra_body": '{"max_tokens": 3}'}, "sets max_tokens"),
        ({"seed": -1}, "seed=-1"),
        ({"price_in": -1}, "price_in=-1"),
        ({"price_in": 10**12 + 1}, "price_in=1000000000001"),
        ({"price_out": -1}, "price_out=-1"),
        ({"price_out": 10**30}, "[0, 1,000,000,000,000]"),
        ({"prompt_overhead": -1}, "prompt_overhead=-1"),
        ({"prompt_overhead": 10**30}, "prompt_overhead=1"),
        ({"max_tokens": 10**30}, "max_tokens=1"),
        ({"concurrency": 0}, "concurrency=0"),
        ({"requests_per_minute": -1}, "requests_per_minute=-1"),
        ({"tokens_per_minute": -1}, "tokens_per_minute=-1"),
        ({"timeout_seconds": 0}, "timeout_seconds=0"),
        ({"timeout_seconds": float("inf")}, "timeout_seconds=inf"),
        ({"retries": -1}, "retries=-1"),
    ],
)
def test_a_bad_setting_is_refused_with_its_name(settings, words):
    with pytest.raises(ConfigError, match=r"teacher\.endpoint") as caught:
        replace(CONFIG, **settings)
    assert words in str(caught.value)


def test_a_key_in_the_place_of_its_name_is_not_repeated():
    with pytest.raises(ConfigError) as caught:
        replace(CONFIG, api_key_env="sk-abc-123")
    assert "sk-abc" not in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        replace(CONFIG, base_url="https://me:sk-abc@host/v1?key=sk-abc")
    assert "sk-abc" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"base_url": ""}, "needs teacher.endpoint.base_url"),
        ({"model": ""}, "needs teacher.endpoint.model"),
        ({"user": "hello"}, "no template shows a column"),
        ({"system": "Say A or B."}, "neither template lists the classes"),
        ({"user": "{texts}"}, "did you mean {text}"),
        ({"class_names": {"nope": "x"}}, "no classes of the task"),
        ({"class_names": {"no": "Yes."}}, "cannot be told apart"),
        ({"api_key_env": "NOT_SET_ANYWHERE"}, "is not set in the environment"),
    ],
)
def test_settings_that_do_not_fit_the_task_are_refused(settings, words):
    with pytest.raises(ConfigError) as caught:
        teacher(**settings)
    assert words in str(caught.value)


def test_more_classes_than_letters_need_votes():
    wide = replace(SCHEMA, classes=tuple(f"class {i}" for i in range(27)))
    with pytest.raises(ConfigError, match="probabilities to votes"):
        teacher(wide)
    assert len(teacher(wide, probabilities="votes").classes) == 27


def test_the_table_is_needed():
    with pytest.raises(ConfigError, match=r"needs the table \[teacher.endpoint\]"):
        build(TeacherConfig(kind="endpoint"), SCHEMA, None)


def test_without_the_package_the_install_line_is_named(monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name == "openai":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.delitem(sys.modules, "openai", raising=False)
    with pytest.raises(MissingExtraError, match=r"pip install 'limbeck\[llm\]'"):
        teacher()


OTHER = {
    "model": "n", "probabilities": "votes", "votes": 3, "temperature": 0.5, "top_logprobs": 5,
    "max_tokens": 9, "max_tokens_name": "max_completion_tokens", "extra_body": '{"a": 1}',
    "system": "{classes}", "user": "{text}", "class_names": {"no": "never"},
    "shuffle_classes": True, "seed": 1, "base_url": "http://elsewhere/v1", "price_in": 5,
    "price_out": 5, "prompt_overhead": 5, "concurrency": 5, "requests_per_minute": 5,
    "tokens_per_minute": 5, "timeout_seconds": 5.0, "retries": 5, "smoke_gate": False,
    "api_key_env": "KEY_OF_THE_TEST", "votes_a_request": 1,
}  # fmt: skip


@pytest.mark.parametrize("name", [entry.name for entry in fields(EndpointConfig)])
def test_the_fingerprint_changes_with_what_shapes_answers_and_nothing_else(name, monkeypatch):
    monkeypatch.setenv("KEY_OF_THE_TEST", KEY)
    common = {"shuffle_classes": True} if name == "seed" else {}
    common |= {"probabilities": "votes"} if name in ("votes", "votes_a_request") else {}
    before = teacher(**common).fingerprint
    after = teacher(**common | {name: OTHER[name]}).fingerprint
    assert (before == after) == (name in (*FREE, "votes_a_request"))


def test_the_key_itself_changes_no_fingerprint(monkeypatch):
    monkeypatch.setenv("KEY_OF_THE_TEST", KEY)
    one = teacher(api_key_env="KEY_OF_THE_TEST").fingerprint
    monkeypatch.setenv("KEY_OF_THE_TEST", "another")
    assert teacher(api_key_env="KEY_OF_THE_TEST").fingerprint == one


def test_a_version_of_the_users_changes_the_fingerprint():
    one, two = (EndpointTeacher(CONFIG, SCHEMA, version=text) for text in ("", "june"))
    assert one.fingerprint != two.fingerprint


def test_columns_that_no_template_shows_are_no_part_of_the_question():
    assert teacher().columns == ("text", "size")
    assert teacher(user="{text}").columns == ("text",)
    assert EndpointTeacher(CONFIG, SCHEMA, columns=("size",)).columns == ("size",)


def test_images_are_not_shown():
    schema = replace(SCHEMA, image=("photo",))
    assert teacher(schema).columns == ("text", "size")
    with pytest.raises(ConfigError, match="is no column"):
        teacher(schema, user="{photo}")


@given(
    texts=st.lists(st.text(max_size=60), min_size=1, max_size=4),
    price_in=st.integers(0, 10**8),
    price_out=st.integers(0, 10**8),
    votes=st.integers(1, 5),
    letters=st.booleans(),
)
def test_a_quote_is_never_below_a_price_that_a_server_can_settle(
    texts, price_in, price_out, votes, letters
):
    """A tokenizer of bytes, replies of full length, and each vote in a request of its own."""
    asked = teacher(
        price_in=price_in, price_out=price_out, votes=votes, votes_a_request=1,
        probabilities="logprobs" if letters else "votes",
    )  # fmt: skip
    batch = rows(*texts)
    quotes = asked.quote_each(batch)
    assert asked.quote(batch).micros == quotes.sum()
    for row, quote in zip(batch.to_pylist(), quotes, strict=True):
        body = asked.next_request(b"q" * 16, row, ())
        tokens = 64 + sum(
            len(value.encode("utf-8", "surrogatepass"))
            for message in body["messages"]
            for value in message.values()
        )
        reply = body["max_tokens"]
        line = b'{"choices": [{}], "usage": {"prompt_tokens": %d, "completion_tokens": %d}}'
        price, *_ = asked.settle(line % (tokens, reply), row, ())
        assert price * (1 if letters else votes) <= quote


def test_parsing_is_a_function_of_id_and_reply():
    """A fresh teacher, that has asked nothing, reads what another one was told."""
    one, two = teacher(shuffle_classes=True, seed=3), teacher(shuffle_classes=True, seed=3)
    ids = np.random.default_rng(0).integers(0, 256, (20, 16), dtype=np.uint8)
    top = '[{"token": "A", "logprob": -0.1}, {"token": "B", "logprob": -2.5}]'
    raw = (
        '{"choices": [{"logprobs": {"content": '
        f'[{{"token": "A", "logprob": -0.1, "top_logprobs": {top}}}]}}}}]}}'
    ).encode()
    replies = Replies(ids, [raw] * 20, np.zeros(20, np.int64), [None] * 20)
    (first, ok), (again, _) = one.parse(replies), two.parse(replies)
    assert ok.all()
    assert (first.probs == again.probs).all()
    # A is the first class listed, which differs from question to question.
    assert set(first.probs.argmax(1).tolist()) == {0, 1, 2}


def test_failures_are_never_parsed_into_answers():
    ids = np.zeros((3, 16), np.uint8)
    replies = Replies(ids, [None, b"{}", b"{}"], np.zeros(3, np.int64), ["lost", None, "bad"])
    answers, ok = teacher().parse(replies)
    assert len(answers) == 0
    assert not ok.any()
    assert answers.probs.shape == (0, 3)


def test_a_secret_shows_itself_nowhere():
    secret = Secret(KEY)
    assert KEY not in repr(secret) + str(secret)
    assert secret.hide(f"no: {KEY}!") == f"no: {HIDDEN}!"
    assert "very" not in secret.hide(r'"sk-very/secret\"key" and "sk-very\/secret\"key"')
    assert Secret("").hide("nothing to hide") == "nothing to hide"
    # What servers on one's own machine take for a key may be any word, of a reply too.
    assert Secret("token").hide('{"token": "A"}') == '{"token": "A"}'
    with pytest.raises(TypeError, match="does not leave"):
        pickle.dumps(secret)


def escaped(draw, text):
    """A text with some of its characters written another way, as one JSON string and decoded."""
    decoded = written = ""
    for character in text:
        code = ord(character)
        forms = [json.dumps(character)[1:-1], f"\\u{code:04x}", f"\\u{code:04X}"]
        forms += ["\\/"] if character == "/" else []
        quoted = [
            f"\\u{code:04x}",
            f"\\x{code:02x}",
            f"%{code:02x}",
            f"%{code:02X}",
            f"%25{code:02X}",
        ]
        if draw(st.integers(0, 3)) == 0:  # escaped in what is said, too
            form = draw(st.sampled_from(quoted))
            decoded, written = decoded + form, written + form.replace("\\", "\\\\")
        else:
            decoded, written = decoded + character, written + draw(st.sampled_from(forms))
    return decoded, written


@given(
    data=st.data(),
    key=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=40),
)
def test_a_key_is_hidden_however_its_characters_are_escaped(data, key):
    """What was JSON stays JSON, and what is said besides stays."""
    decoded, written = escaped(data.draw, key)
    reply = f'{{"said": "\\n {written} \\n"}}'
    assert json.loads(reply)["said"] == f"\n {decoded} \n"
    hide = Secret(key).hide
    assert json.loads(hide(reply)) == {"said": f"\n {HIDDEN} \n"}
    assert hide(f"\n {decoded} \n") == f"\n {HIDDEN} \n"
    assert hide(f"it said {reply!r}").count(HIDDEN) == 1
    assert hide(f"{key[:-1]} {key[-1]}") == f"{key[:-1]} {key[-1]}"  # only the whole of it


def test_backslashes_in_front_of_a_key_leave_no_broken_json():
    secret = Secret("nabcdefgh")
    for reply in (r'{"said": "x\nabcdefgh"}', r'{"said": "x\\nabcdefgh"}'):
        assert json.loads(secret.hide(reply)) == {"said": f"x{HIDDEN}"}


def test_a_long_run_of_backslashes_is_searched_quickly():
    """Without bounds the search would take years."""
    Secret("sk-" + "aB3d\\" * 40).hide(("\\" * 5000 + "sk-" + "aB3d\\" * 39) * 2)


def test_the_sentence_about_a_failure_hides_the_key_before_it_is_cut(monkeypatch):
    key = "abcd+efgh/1234=xyz"
    monkeypatch.setenv("KEY_OF_THE_TEST", key)
    asked = teacher(probabilities="votes", votes=1, api_key_env="KEY_OF_THE_TEST")
    for form in (
        key,
        r"abcd\u002Befgh\/1234=xyz",
        r"abcd%2befgh%2F1234%3Dxyz",
        r"abcd\\u002Befgh/1234=xyz",
    ):
        for before in ("", "x" * 50):
            raw = f'{{"choices": [{{"message": {{"content": "{before}{form}"}}}}]}}'
            told = asked.explain(b"q" * 16, raw.encode())
            assert HIDDEN in told
            assert "abcd" not in told


def test_settings_come_from_file_options_and_environment_alike(tmp_path, monkeypatch):
    monkeypatch.setenv("LIMBECK_TEACHER_ENDPOINT_PRICE_OUT", "7")
    file = tmp_path / "run.toml"
    file.write_text(
        'budget = 5\n[data]\nlabelled = "x.csv"\n[teacher]\nkind = "endpoint"\n[teacher.endpoint]\n'
        'model = "m"\nconcurrency = 3\n[teacher.endpoint.class_names]\n0 = "bad"\n"1 2" = "good"\n'
    )
    config = load_config(file, ["--teacher.endpoint.base_url", "http://host/v1"])
    endpoint = config.teacher.endpoint
    assert (endpoint.model, endpoint.concurrency, endpoint.price_out) == ("m", 3, 7)
    assert endpoint.base_url == "http://host/v1"
    assert endpoint.class_names == {"0": "bad", "1 2": "good"}
    monkeypatch.delenv("LIMBECK_TEACHER_ENDPOINT_PRICE_OUT")
    (tmp_path / "again.toml").write_text(to_toml(config))
    assert load_config(tmp_path / "again.toml") == config


def test_an_unknown_setting_names_the_nearest(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text(
        'budget = 5\n[data]\nlabelled = "x.csv"\n[teacher]\nkind = "endpoint"\n[teacher.endpoint]\n'
        'modle = "m"\n'
    )
    with pytest.raises(ConfigError, match="model"):
        load_config(file)
