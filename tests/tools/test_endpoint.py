"""The client of remote models against a service that misbehaves: nothing is lost, paid twice, or leaked."""

import asyncio
import errno
import json
import sqlite3
import sys
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise
from pathlib import Path

import pytest

from gradus.conversation.messages import Message, ToolCall, ToolSchema
from gradus.core.errors import BudgetError, ConfigError, EndpointError
from gradus.core.secrets import HIDDEN, redacted
from gradus.core.settings import load_settings
from gradus.posttrain.synthesis.teacher import read_fields
from gradus.tools.answers import Answers
from gradus.tools.endpoint import ChatRequest, Endpoint, RequestRefusedError
from gradus.tools.endpoint_replies import read_completion, retry_after
from gradus.tools.endpoint_settings import EndpointSettings

sys.path.insert(0, str(Path(__file__).parents[1]))
from teacher_server import MODEL, Fault, running

KEY = "sk-" + "very-secret-0123456789"


@pytest.fixture
def server():
    with running() as server:
        yield server


@pytest.fixture
def answers(tmp_path):
    with Answers(tmp_path / "answers.sqlite") as answers:
        yield answers


def settings_for(server, **changes):
    return EndpointSettings(base_url=server.base_url, model=MODEL, timeout_seconds=5, **changes)


def ask(settings, answers, *texts, payer="test", gather=True, **request):
    """The endpoint, and what came of each text: an answer, or the exception."""

    async def go():
        async with Endpoint(settings, answers, payer) as endpoint:
            requests = [ChatRequest((Message("user", text),), **request) for text in texts]
            if gather:
                found = await asyncio.gather(*(endpoint.chat(r) for r in requests), return_exceptions=True)
            else:
                found = [await endpoint.chat(r) for r in requests]
            return endpoint, found

    return asyncio.run(go())


def test_an_answer_is_paid_for_once(server, answers):
    settings = settings_for(server, input_price=1.0, output_price=10.0)
    first, (answer,) = ask(settings, answers, "hello")
    assert answer.message == Message("assistant", "You said: hello")
    assert not answer.reused
    second, (again,) = ask(settings, answers, "hello")
    assert again.reused
    assert again.message == answer.message
    assert len(server.requests) == 1
    spent = answers.spent("test")
    # The server counts a token for every four characters of JSON.
    tokens_in = len(json.dumps(server.requests[0]["messages"])) // 4
    tokens_out = len(json.dumps({"role": "assistant", "content": "You said: hello"})) // 4
    assert (spent.requests, spent.input_tokens, spent.output_tokens) == (1, tokens_in, tokens_out)
    assert spent.money == pytest.approx((tokens_in + 10 * tokens_out) / 1e6)
    assert first.spent == pytest.approx(second.spent) == pytest.approx(spent.money)


def test_another_draw_or_another_setting_is_another_request(server, answers):
    ask(settings_for(server), answers, "hello")
    ask(settings_for(server), answers, "hello", draw=1)
    ask(settings_for(server, temperature=0.5), answers, "hello")
    ask(settings_for(server, extra={"reasoning_effort": "low"}), answers, "hello")
    assert len(server.requests) == 4
    assert server.requests[2]["temperature"] == 0.5
    assert server.requests[3]["reasoning_effort"] == "low"
    assert "temperature" not in server.requests[0]


def test_the_same_request_at_once_is_sent_once(server, answers):
    server.delay = 0.1
    endpoint, found = ask(settings_for(server), answers, *["hello"] * 5)
    assert len(server.requests) == 1
    assert endpoint.traffic.reused == 4
    assert {answer.message.content for answer in found} == {"You said: hello"}


def test_no_more_requests_are_in_flight_than_allowed(server, answers):
    server.delay = 0.05
    ask(settings_for(server, concurrency=3), answers, *[f"number {i}" for i in range(12)])
    assert server.most_in_flight == 3


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault(status=500), "status_500"),
        (Fault(status=503, headers={"Retry-After": "0"}), "status_503"),
        (Fault(drop=True), "connection_lost"),
        (Fault(cut=40), "connection_lost"),
        (Fault(body='{"choices": [{"mess'), "truncated_json"),
        (Fault(body='{"choices": []}'), "no_choices"),
        (Fault(body='{"error": {"message": "overloaded"}}'), "no_choices"),
        (Fault(body="<html>busy</html>"), "truncated_json"),
        (Fault(body='{"choices": [{"message": null}]}'), "no_message"),
        (Fault(status=429, headers={"Retry-After": "0.05"}), "rate_limit"),
    ],
)
def test_a_fault_is_tried_again(server, answers, fault, reason, monkeypatch):
    monkeypatch.setattr("gradus.tools.endpoint._FIRST_DELAY_SECONDS", 0.01)
    server.faults = [fault]
    endpoint, (answer,) = ask(settings_for(server), answers, "hello")
    assert answer.message.content == "You said: hello"
    assert endpoint.traffic.faults == {reason: 1}
    assert len(server.requests) == 2


def test_a_hanging_attempt_is_given_up_and_tried_again(server, answers, monkeypatch):
    monkeypatch.setattr("gradus.tools.endpoint._FIRST_DELAY_SECONDS", 0.01)
    server.faults = [Fault(silent_seconds=1.0)]
    settings = settings_for(server).model_copy(update={"timeout_seconds": 0.2})
    endpoint, (answer,) = ask(settings, answers, "hello")
    assert answer.message.content == "You said: hello"
    assert endpoint.traffic.faults == {"timeout": 1}


def test_a_rate_limit_holds_all_requests_as_long_as_it_says(server, answers):
    server.faults = [Fault(status=429, headers={"Retry-After": "1"}) for _ in range(4)]
    began = time.monotonic()
    endpoint, found = ask(settings_for(server, concurrency=4, max_attempts=1), answers, *"abcdefgh")
    assert all(answer.message.content.startswith("You said") for answer in found)
    # A limit is no failure of a request, so one attempt is enough for each.
    assert endpoint.traffic.faults == {"rate_limit": 4}
    assert min(server.times[4:]) - began >= 0.9


def test_delays_double_between_attempts(server, answers, monkeypatch):
    monkeypatch.setattr("gradus.tools.endpoint._FIRST_DELAY_SECONDS", 0.1)
    server.faults = [Fault(status=500)] * 3
    ask(settings_for(server), answers, "hello")
    gaps = [b - a for a, b in zip(server.times, server.times[1:], strict=False)]
    for gap, most in zip(gaps, (0.1, 0.2, 0.4), strict=True):
        assert most / 2 <= gap < most + 0.15


def test_retry_after_is_read_in_each_of_its_forms():
    assert retry_after({"retry-after": "7"}) == 7.0
    assert retry_after({"retry-after-ms": "250", "retry-after": "7"}) == 0.25
    at = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert retry_after({"retry-after": at}) == pytest.approx(30, abs=2)
    assert retry_after({"retry-after": "soon"}) is None
    assert retry_after({}) is None


def test_one_request_that_always_fails_leaves_the_others_alone(server, answers, monkeypatch):
    monkeypatch.setattr("gradus.tools.endpoint._FIRST_DELAY_SECONDS", 0.01)
    server.mind = lambda body: "fine" if "good" in body["messages"][-1]["content"] else {"bad": 1}
    settings = settings_for(server, max_attempts=3, concurrency=1)
    server.faults = [Fault(), *[Fault(status=500)] * 3]
    _, (one, two, three) = ask(settings, answers, "good 1", "bad", "good 2")
    assert one.message.content == three.message.content == "fine"
    assert isinstance(two, RequestRefusedError)
    assert str(two) == "no answer in 3 attempts (last: status_500: scripted fault 500)"


def test_a_service_that_answers_nothing_is_not_taken_for_many_bad_requests(server, answers, monkeypatch):
    monkeypatch.setattr("gradus.tools.endpoint._FIRST_DELAY_SECONDS", 0.001)
    server.faults = [Fault(status=500)] * 40
    _, found = ask(settings_for(server, max_attempts=2, concurrency=1), answers, *"abcdef")
    assert [type(error) for error in found[:3]] == [RequestRefusedError, RequestRefusedError, EndpointError]
    assert "no answer to 3 requests one after the other" in str(found[2])


def test_a_full_disk_is_told_as_one_and_the_answer_before_it_is_kept(server, answers):
    ask(settings_for(server), answers, "first")
    (pages,) = answers._file.execute("PRAGMA page_count").fetchone()
    answers._file.execute(f"PRAGMA max_page_count = {pages}")
    server.mind = lambda body: "x" * 100_000
    _, (error,) = ask(settings_for(server), answers, "second")
    assert isinstance(error, OSError)
    assert error.errno == errno.ENOSPC
    _, (answer,) = ask(settings_for(server), answers, "first")
    assert answer.reused


def test_a_request_that_is_refused_fails_alone(server, answers):
    server.faults = [Fault(), Fault(status=400, body='{"error": {"message": "content filter"}}')]
    _, (one, two, three) = ask(settings_for(server, concurrency=1), answers, "a", "b", "c")
    assert one.message.content
    assert three.message.content
    assert isinstance(two, RequestRefusedError)
    assert str(two) == "refused by the service: status 400: content filter"


def test_a_service_that_refuses_everything_stops_the_work(server, answers):
    refusal = '{"error": {"message": "Unsupported parameter: max_tokens. Use max_completion_tokens instead."}}'
    server.faults = [Fault(status=400, body=refusal)] * 8
    _, found = ask(settings_for(server, concurrency=1), answers, *"abcdefgh")
    assert "refuses every request" in str(found[4])
    assert not isinstance(found[4], RequestRefusedError)
    assert 'set limit_key = "max_completion_tokens"' in str(found[4])


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (Fault(status=401, body='{"error": {"message": "no such key"}}'), "refuses the key (status 401): no such key"),
        (Fault(status=404, body='{"error": "model not found"}'), 'does not know the model or the address (status 404)'),
        (Fault(status=402), "no money left"),
        (Fault(status=429, body='{"error": {"code": "insufficient_quota"}}'), "no money left"),
        (Fault(status=301, headers={"Location": "https://elsewhere/"}), "answered with status 301 to https://elsewhere/"),
        (Fault(change=lambda c: c.update(model="other-2")), 'set served_as = "other-2"'),
    ],
)  # fmt: skip
def test_what_no_repetition_mends_stops_at_once(server, answers, fault, text):
    server.faults = [fault]
    _, (error,) = ask(settings_for(server), answers, "hello")
    assert isinstance(error, EndpointError)
    assert not isinstance(error, RequestRefusedError)
    assert text in str(error)
    assert len(server.requests) == 1


def test_a_wrong_model_gets_the_nearest_name(server, answers):
    server.faults = [Fault(status=404)]
    settings = settings_for(server).model_copy(update={"model": "teacher-larg"})
    _, (error,) = ask(settings, answers, "hello")
    assert str(error).endswith('; did you mean "teacher-large"?')


def test_dated_and_prefixed_names_are_the_same_model(server, answers):
    server.faults = [Fault(change=lambda c: c.update(model="org/teacher-1-2026-01-01"))]
    _, (answer,) = ask(settings_for(server), answers, "hello")
    assert answer.message.content == "You said: hello"


def test_no_answer_for_too_long_stops_with_what_was_asked_of_us(server, answers):
    server.faults = [Fault(status=429, headers={"Retry-After": "3600"})]
    _, (error,) = ask(settings_for(server, patience_seconds=60), answers, "hello")
    assert "it asks to wait 3,600 s" in str(error)
    assert "run the same command again later" in str(error)


def test_nobody_listening_is_told_with_the_address(answers, monkeypatch):
    monkeypatch.setattr("gradus.tools.endpoint._FIRST_DELAY_SECONDS", 0.01)
    settings = EndpointSettings(base_url="http://127.0.0.1:9/v1", model="m", patience_seconds=0.05)
    _, (error,) = ask(settings, answers, "hello")
    assert str(error).startswith("http://127.0.0.1:9/v1: no answer for")
    assert "no_connection" in str(error)


def test_a_key_behind_escapes_is_hidden_too(server, answers, monkeypatch):
    key = 'ab/cd"efgh-0123456789'
    monkeypatch.setenv("MY_TEACHER", key)
    settings = settings_for(server, key_variable="MY_TEACHER", max_attempts=1)
    escaped = json.dumps(f"it is {key}").replace("/", "\\/").replace("-", "\\u002d")
    for status in (400, 401, 404, 418, 500):
        server.faults = [Fault(status=status, body=f'{{"error": {{"message": {escaped}}}}}')]
        _, (error,) = ask(settings, answers, f"ask {status}")
        assert key not in str(error)
        assert HIDDEN in str(error)
    answered = f'{{"choices": [{{"message": {{"content": {escaped}, "tool_calls": [{{"id": {escaped}}}]}}}}]}}'
    kept = read_completion(answered.encode(), settings)["message"]
    assert (kept["content"], kept["tool_calls"]) == (f"it is {HIDDEN}", [{"id": f"it is {HIDDEN}"}])
    # The rows of a teacher are JSON once more.
    assert read_fields(f'{{"a": {escaped}}}', {"a": ""}) == {"a": f"it is {HIDDEN}"}


# Content


@pytest.mark.parametrize(
    "message",
    [
        '{"content": "a", "tool_calls": [{"id": 1e999}]}',
        '{"content": "a", "tool_calls": [NaN]}',
        '{"content": "a", "tool_calls": ' + "[" * 30_000 + "]" * 30_000 + "}",
    ],
)
def test_a_message_that_cannot_be_kept_fails_alone(server, answers, message):
    server.faults = [Fault(body=f'{{"choices": [{{"message": {message}}}]}}')]
    _, (error, answer) = ask(settings_for(server, max_attempts=1, concurrency=1), answers, "one", "two")
    assert isinstance(error, RequestRefusedError)
    assert answer.message.content == "You said: two"


def test_an_error_nested_beyond_reading_is_told(server, answers):
    server.faults = [Fault(status=401, body="[" * 100_000)]
    with pytest.raises(EndpointError, match="refuses the key"):
        ask(settings_for(server), answers, "hello", gather=False)


def test_thinking_is_read_under_both_names_and_calls_become_objects():
    settings = EndpointSettings(base_url="http://127.0.0.1/v1", model="m")
    for name in ("reasoning_content", "reasoning"):
        message = {"role": "assistant", "content": "4", name: "2 and 2"}
        found = read_completion(json.dumps({"choices": [{"message": message}]}).encode(), settings)
        assert found["message"] == {"role": "assistant", "content": "4", "reasoning_content": "2 and 2"}
        assert found["usage"] == {}


def test_calls_and_results_go_and_come_in_the_shape_of_the_api(server, answers):
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    server.mind = lambda body: {"content": None, "tool_calls": [call]}
    tool = ToolSchema("add", "Adds.", {"type": "object", "properties": {"a": {"type": "integer"}}})

    async def go():
        async with Endpoint(settings_for(server), answers, "test") as endpoint:
            first = await endpoint.chat(ChatRequest((Message("user", "1?"),), (tool,)))
            history = (Message("user", "1?"), first.message, Message("tool", "1", tool_call_id="c1"))
            await endpoint.chat(ChatRequest(history, (tool,)))
            return first

    assert asyncio.run(go()).message.tool_calls == (ToolCall("c1", "add", {"a": 1}),)
    assert server.requests[1]["messages"][1:] == [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "1", "tool_call_id": "c1"},
    ]
    assert server.requests[0]["tools"] == [{"type": "function", "function": tool.to_json()}]


def test_a_call_that_is_no_json_fails_alone_and_is_not_paid_for_again(server, answers):
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": '}}
    server.mind = lambda body: {"content": "", "tool_calls": [call]}
    for _ in range(2):
        _, (error,) = ask(settings_for(server), answers, "hello")
        assert isinstance(error, RequestRefusedError)
        assert "cannot be read" in str(error)
    assert len(server.requests) == 1


def test_hostile_text_comes_back_as_it_is(server, answers):
    text = "\u0000 \ud83d\ude00 <|im_end|> \u202e '; DROP TABLE answers; --"
    text = text.encode("utf-16", "surrogatepass").decode("utf-16")
    server.mind = lambda body: text
    for _ in range(2):
        _, (answer,) = ask(settings_for(server), answers, text)
        assert answer.message.content == text


# Money


def test_a_budget_stops_before_it_could_be_passed_and_goes_on_when_raised(server, answers):
    # A request may cost 100 tokens of output at 1 each, and its bytes at 0.
    prices = {"input_price": 0.0, "output_price": 1e6, "max_tokens": 100, "concurrency": 8}
    server.mind = lambda body: "x" * (4 * 20 - len(json.dumps({"role": "assistant", "content": ""})))  # 20 tokens
    texts = [f"number {i}" for i in range(20)]
    endpoint, found = ask(settings_for(server, **prices, budget=250), answers, *texts)
    done = [a for a in found if not isinstance(a, Exception)]
    assert endpoint.spent == 20 * len(done) == answers.spent("test").money
    # 150 spent leave room for one more that may cost 100; 160 do not.
    assert len(done) == 8
    stopped = [a for a in found if isinstance(a, BudgetError)]
    assert len(stopped) == 12
    assert "raise budget and run the same command again" in str(stopped[0])
    _, found = ask(settings_for(server, **prices, budget=1000), answers, *texts)
    assert not [a for a in found if isinstance(a, Exception)]
    assert len(server.requests) == 20


def test_processes_that_ask_for_one_payer_share_its_budget(server, answers):
    settings = settings_for(server, input_price=0.0, output_price=1e6, max_tokens=100, budget=250)
    server.mind = lambda body: "x" * (4 * 20 - len(json.dumps({"role": "assistant", "content": ""})))  # 20 tokens

    async def go(*endpoints):
        found = []
        for number in range(12):
            for place, endpoint in enumerate(endpoints):
                request = ChatRequest((Message("user", f"number {number} of {place}"),))
                found += await asyncio.gather(endpoint.chat(request), return_exceptions=True)
        return found

    async def both():
        # As two processes that begin together: each with the file open for itself, before anything is spent.
        with Answers(answers.path) as file:
            async with Endpoint(settings, answers, "test") as one, Endpoint(settings, file, "test") as other:
                return await go(one, other)

    found = asyncio.run(both())
    assert answers.spent("test").money == 160  # another request could cost 100
    stopped = [answer for answer in found if isinstance(answer, Exception)]
    assert len(stopped) == 16
    assert all(isinstance(error, BudgetError) and "160.0000 of the budget of 250" in str(error) for error in stopped)


def test_what_may_have_been_charged_counts_until_it_is_known(server, answers, monkeypatch):
    monkeypatch.setattr("gradus.tools.endpoint._FIRST_DELAY_SECONDS", 0.01)
    prices = {"input_price": 0.0, "output_price": 1e6, "max_tokens": 100}
    server.faults = [Fault(cut=30), Fault(status=500)]
    ask(settings_for(server, **prices), answers, "hello")
    spent = answers.spent("test")
    assert spent.unsettled == 100  # the cut answer; the 500 cost nothing
    assert spent.requests == 2
    assert spent.money == 100 + spent.output_tokens


def test_answers_without_usage_are_counted_by_their_bytes(server, answers):
    server.faults = [Fault(change=lambda c: c.pop("usage"))]
    endpoint, (answer,) = ask(settings_for(server), answers, "hello")
    assert answer.usage.estimated == endpoint.traffic.usage.estimated == 1
    assert answer.usage.input_tokens > 0


def test_usage_that_cannot_be_lowers_no_bill(server, answers):
    def lie(body):
        body["usage"] = {"prompt_tokens": 10, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 10**9}}

    def boast(body):
        body["usage"] = {"prompt_tokens": 10**30, "completion_tokens": 1}

    settings = settings_for(server, input_price=1.0, output_price=1.0, cached_input_price=0.0)
    server.faults = [Fault(change=lie)]
    endpoint, _ = ask(settings, answers, "hello", gather=False)
    assert endpoint.spent == pytest.approx(1e-6)
    server.faults = [Fault(change=boast)]
    endpoint, _ = ask(settings, answers, "again", gather=False)
    assert endpoint.traffic.usage.estimated == 1


def test_a_rate_limit_that_asks_for_no_wait_is_not_stormed(server, answers):
    server.faults = [Fault(status=429, headers={"Retry-After": "0"})] * 2
    ask(settings_for(server), answers, "hello")
    assert min(later - sooner for sooner, later in pairwise(server.times)) >= 0.2


# Secrets


def test_the_key_is_sent_and_stands_nowhere(server, answers, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_TEACHER", KEY)
    settings = settings_for(server, key_variable="MY_TEACHER")
    # A careless service shows the key in its answers and in its errors.
    server.mind = lambda body: f"the key is {KEY}, said the fox"
    _, (answer,) = ask(settings, answers, "hello")
    assert server.keys == [f"Bearer {KEY}"]
    assert answer.message.content == f"the key is {HIDDEN}, said the fox"
    server.faults = [Fault(status=401, body=json.dumps({"error": {"message": f"bad key {KEY}"}}))]
    _, (error,) = ask(settings, answers, "again")
    assert KEY not in str(error)
    assert HIDDEN in str(error)
    for file in tmp_path.iterdir():
        assert KEY.encode() not in file.read_bytes()
    assert "MY_TEACHER" not in settings.model_dump_json()
    assert redacted(f"anywhere: {KEY}!") == f"anywhere: {HIDDEN}!"


def test_a_key_file_must_be_its_owners_alone(server, answers, tmp_path):
    file = tmp_path / "key"
    file.write_text(KEY + "\n")
    file.chmod(0o644)
    settings = settings_for(server, key_file=str(file))
    with pytest.raises(ConfigError, match="chmod 600"):
        ask(settings, answers, "hello")
    file.chmod(0o600)
    ask(settings, answers, "hello")
    assert server.keys == [f"Bearer {KEY}"]


def test_a_variable_that_is_not_set_or_holds_no_key_is_told_by_its_name(server, answers, monkeypatch):
    monkeypatch.delenv("MY_TEACHER", raising=False)
    with pytest.raises(ConfigError, match=r"MY_TEACHER is not set; export MY_TEACHER=\.\.\."):
        ask(settings_for(server, key_variable="MY_TEACHER"), answers, "hello")
    monkeypatch.setenv("MY_TEACHER", "two words\nHost: elsewhere")
    with pytest.raises(ConfigError, match="MY_TEACHER holds no key") as error:
        ask(settings_for(server, key_variable="MY_TEACHER"), answers, "hello")
    assert "elsewhere" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"base_url": "https://me:word@host/v1"}, "an address without user name"),
        ({"base_url": "https://host/v1?api-key=abc"}, "an address without user name"),
        ({"base_url": "host/v1"}, 'found "host/v1"'),
        ({"base_url": "http://example.com/v1", "key_variable": "K"}, "use an https:// address"),
        ({"extra": {"api_key": "x"}}, "looks like a secret"),
        ({"extra": {"headers": [{"Authorization": "x"}]}}, '"Authorization" looks like a secret'),
        ({"key_variable": KEY}, "it looks like a key"),
        ({"key_variable": "gsk_secret0123456789"}, "it looks like a key"),
        ({"key_variable": "0secret"}, "it looks like a key"),
        ({"base_url": "http://134744072/v1", "key_variable": "K"}, "use an https:// address"),
        ({"extra": {"stream": True}}, '"stream" is not for extra'),
        ({"key_variable": "K", "key_file": "f"}, "give either key_variable or key_file"),
        ({"budget": 1.0}, "a budget needs input_price and output_price"),
        ({"input_price": 1.0}, "give both input_price and output_price"),
        ({"modell": "x"}, 'unknown key "modell"; did you mean "model"?'),
    ],
)
def test_wrong_settings_are_refused_with_the_fix(changes, text):
    with pytest.raises(ConfigError) as error:
        load_settings(EndpointSettings, {"base_url": "https://host/v1", "model": "m"} | changes)
    assert text in str(error.value)
    assert "word@" not in str(error.value)
    assert "abc" not in str(error.value)


def test_a_key_in_the_wrong_place_is_not_shown_and_schemas_may_name_keys():
    with pytest.raises(ConfigError) as error:
        load_settings(EndpointSettings, {"base_url": "https://h/v1", "model": "m", "key_variable": KEY}, "r.toml")
    assert "secret" not in str(error.value)
    schema = {"guided_json": {"properties": {"keywords": {"type": "string"}}}}
    assert EndpointSettings(base_url="https://h/v1", model="m", extra=schema).extra == schema


def test_how_it_is_asked_is_no_part_of_what_is_asked():
    base = {"base_url": "https://host/v1", "model": "m"}
    more = {"key_variable": "K", "concurrency": 64, "budget": 9.0, "input_price": 1.0, "output_price": 2.0}
    assert EndpointSettings(**base).model_dump() == EndpointSettings(**base, **more).model_dump()
    assert EndpointSettings(base_url="https://host/v1/chat/completions", model="m") == EndpointSettings(**base)


# The file


def test_a_foreign_or_damaged_file_is_refused(tmp_path):
    foreign = tmp_path / "other.sqlite"
    with sqlite3.connect(foreign) as file:
        file.execute("CREATE TABLE mine (x)")
    file.close()
    with pytest.raises(EndpointError, match="not a file of answers"):
        Answers(foreign)
    broken = tmp_path / "broken.sqlite"
    broken.write_bytes(b"no database at all" * 100)
    with pytest.raises(EndpointError, match="damaged"):
        Answers(broken)
