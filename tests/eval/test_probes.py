"""Probe suites on a model that knows a few conversations by heart."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gradus.conversation.messages import Conversation, Message, ToolCall
from gradus.conversation.probes import Probe, Suite, load_suite
from gradus.core.errors import ConfigError, DataError
from gradus.core.settings import load_settings
from gradus.engine.engine import Engine
from gradus.engine.sampling import Sampling
from gradus.engine.turn import Reply
from gradus.eval.probes import VARIANTS, ProbeSettings, run_suite, varied

pytestmark = pytest.mark.usefixtures("one_thread")

Memory = tuple[Engine, dict[str, Conversation]]


def make_suite(*rows: dict[str, Any]) -> Suite:
    probes = tuple(load_settings(Probe, {"id": f"p{i}", **row}) for i, row in enumerate(rows))
    return Suite("small", probes, "digest")


def said(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


PRODUCT = {
    "category": "sums",
    "messages": said("what is 12 * 3?"),
    "think": True,
    "tools": ["calculator"],
    "checks": [
        {"kind": "calls", "tool": "calculator"},
        {"kind": "answer_number", "value": 36},
        {"kind": "think_closed"},
        {"kind": "stops"},
    ],
}
GREETING = {
    "category": "talk",
    "messages": said("hello"),
    "think": False,
    "checks": [{"kind": "calls_none"}, {"kind": "answer_contains", "all": ["Hello", "Goodbye"]}],
}
NAME = {
    "category": "talk",
    "turns": ["I am Ada", "who am I?"],
    "checks": [{"kind": "answer_contains", "any": ["Ada"]}, {"kind": "answer_excludes", "any": ["Hello"]}],
}


def test_answers_are_judged_by_their_checks(memorised: Memory) -> None:
    engine, _ = memorised
    seen: list[tuple[int, int]] = []
    result = run_suite(
        engine, make_suite(PRODUCT, GREETING, NAME), model="m", on_progress=lambda *now: seen.append(now)
    )
    assert [item.passed for item in result.items] == [True, False, True]
    assert seen == [(1, 3), (2, 3), (3, 3)]
    data = result.to_json()
    assert data["items"][0] == {
        "id": "p0",
        "category": "sums",
        "passed": True,
        "reasons": [],
        "answer": "12 * 3 = 36.",
        "thinking": "The calculator knows 12 * 3.",
        "calls": [{"name": "calculator", "arguments": {"expression": "12 * 3"}, "result": "36"}],
    }
    assert data["items"][1]["reasons"] == ["answer_contains: lacks 'Goodbye'"]
    assert (data["suite"], data["model"]) == ("small", "m")
    assert result.num_tokens > 0
    assert result.seconds > 0


def test_turns_are_answered_one_after_another_and_the_last_is_judged(memorised: Memory) -> None:
    engine, _ = memorised
    asked: list[Conversation] = []
    generate = engine.generate

    class Spy(Engine):
        def generate(self, requests: Any, on_reply: Any = None) -> list[Reply]:
            asked.extend(request.conversation for request in requests)
            return generate(requests, on_reply)

    spy = Spy(engine.model, engine.tokenizer, engine.form, engine.toolbox)
    assert run_suite(spy, make_suite(NAME)).items[0].shown.answer == "You are Ada."
    assert [m.content for m in asked[1].messages] == ["I am Ada", "Hello Ada.", "who am I?"]


def test_a_pattern_that_takes_too_long_is_told_with_its_suite_and_probe(
    memorised: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, _ = memorised
    monkeypatch.setattr("gradus.conversation.timed_patterns.SEARCH_SECONDS", 0.05)
    slow = {**GREETING, "checks": [{"kind": "answer_regex", "pattern": "(a|aa)+$"}]}
    asked = make_suite(GREETING, slow)
    generate = engine.generate

    class Looping(Engine):
        def generate(self, requests: Any, on_reply: Any = None) -> list[Reply]:
            def looped(index: int, reply: Reply) -> None:
                answer = Message("assistant", "a" * 60 + "b")
                on_reply(index, replace(reply, turn=replace(reply.turn, messages=(answer,))))

            return generate(requests, looped)

    looping = Looping(engine.decoder, engine.tokenizer, engine.form, engine.toolbox)
    with pytest.raises(DataError, match=r'suite "small", probe "p1": the pattern .* takes longer than 0\.05 s'):
        run_suite(looping, asked)


def test_switches_of_the_run_hold_where_a_probe_leaves_them_open(memorised: Memory) -> None:
    engine, _ = memorised
    bare = {key: value for key, value in PRODUCT.items() if key not in {"think", "tools"}}
    closed = run_suite(engine, make_suite(bare))
    assert not closed.items[0].passed
    opened = run_suite(engine, make_suite(bare), ProbeSettings(think=True, tools=("calculator",)))
    assert opened.items[0].passed


def test_several_samples_differ_and_repeat_for_the_same_seed(memorised: Memory) -> None:
    engine, _ = memorised
    hot = ProbeSettings(samples=6, sampling=Sampling(temperature=2.0, seed=5), max_tokens=30)
    first, again = (run_suite(engine, make_suite(PRODUCT, GREETING), hot) for _ in range(2))
    assert first.items == again.items
    samples = first.items[0].samples
    assert len(samples) == 6
    assert len({sample.thinking + sample.answer for sample in samples}) > 1
    other = run_suite(engine, make_suite(PRODUCT, GREETING), replace(hot, sampling=Sampling(temperature=2.0)))
    assert other.items != first.items


def test_a_probe_answers_the_same_whatever_else_is_in_the_suite(memorised: Memory) -> None:
    engine, _ = memorised
    hot = ProbeSettings(samples=2, sampling=Sampling(temperature=2.0), max_tokens=30)
    alone = run_suite(engine, make_suite(PRODUCT), hot)
    among = run_suite(engine, make_suite(PRODUCT, GREETING, NAME), hot)
    assert alone.items[0] == among.items[0]


def test_greedy_runs_take_one_sample_whatever_is_asked(memorised: Memory) -> None:
    engine, _ = memorised
    probe = {**GREETING, "samples": 3}
    assert len(run_suite(engine, make_suite(probe)).items[0].samples) == 1
    warm = ProbeSettings(sampling=Sampling(temperature=0.5), max_tokens=20)
    assert len(run_suite(engine, make_suite(probe), warm).items[0].samples) == 3


def test_a_dialogue_that_outgrows_the_context_fails_its_probe(memorised: Memory) -> None:
    engine, _ = memorised
    long = {"turns": ["hello", "why " * 400], "think": False, "checks": [{"kind": "stops"}]}
    result = run_suite(engine, make_suite(long, GREETING))
    assert result.items[0].shown.reasons[0].startswith("context: the prompt holds")
    assert len(result.items) == 2


def test_a_suite_that_never_fits_is_an_error_and_no_result(memorised: Memory) -> None:
    engine, _ = memorised
    endless = {"messages": said("why " * 400), "checks": [{"kind": "stops"}]}
    with pytest.raises(Exception, match="context is 512"):
        run_suite(engine, make_suite(endless))


DOCUMENTS = '{"title": "Seoul", "url": "u", "text": "Seoul is cold today."}\n'


def test_a_suites_documents_are_what_web_search_finds(memorised: Memory, tmp_path: Path) -> None:
    engine, _ = memorised
    (tmp_path / "d.jsonl").write_text(DOCUMENTS)
    row = {"id": "a", "turns": ["hello"], "tools": ["web_search"], "checks": [{"kind": "stops"}]}
    (tmp_path / "s.jsonl").write_text(json.dumps({"documents": "d.jsonl"}) + "\n" + json.dumps(row) + "\n")
    suite = load_suite(tmp_path / "s.jsonl")
    searched: list[str] = []
    generate = Engine.generate

    def spy(self: Engine, requests: Any, on_reply: Any = None) -> list[Reply]:
        found = self.toolbox.run(ToolCall("c", "web_search", {"query": "Seoul"}))
        searched.append(found.content)
        return generate(self, requests, on_reply)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Engine, "generate", spy)
        assert len(run_suite(engine, suite, ProbeSettings(max_tokens=8)).items) == 1
    assert json.loads(searched[0])["results"][0]["text"] == "Seoul is cold today."
    assert suite.digest != load_suite_without(tmp_path, row).digest
    with pytest.raises(ConfigError, match='unknown tool "web_search"'):
        run_suite(engine, load_suite_without(tmp_path, row))


def load_suite_without(folder: Path, row: dict[str, Any]) -> Suite:
    (folder / "bare.jsonl").write_text(json.dumps(row) + "\n")
    return load_suite(folder / "bare.jsonl")


def test_without_tools_no_call_is_asked_for_and_without_thinking_none_is_done(memorised: Memory) -> None:
    engine, _ = memorised
    only_calls = {**PRODUCT, "checks": [{"kind": "calls", "tool": "calculator"}]}
    suite = make_suite(PRODUCT, GREETING, only_calls)
    bare = varied(suite, VARIANTS["without tools"])
    assert [probe.id for probe in bare.probes] == ["p0", "p1"]
    assert [check.kind for check in bare.probes[0].checks] == ["answer_number", "think_closed", "stops"]
    assert run_suite(engine, suite, variant="without both").items[0].shown.calls == ()
    direct = run_suite(engine, suite, variant="without thinking")
    assert (direct.items[0].shown.thinking, direct.variant) == ("", "without thinking")
    assert run_suite(engine, suite, variant="as written").items == run_suite(engine, suite).items


def test_every_probe_that_cannot_be_asked_is_told_by_its_id_before_the_first_is(memorised: Memory) -> None:
    # The first one ended the evaluation without a word of which it was.
    engine, _ = memorised
    suite = make_suite(GREETING, GREETING | {"messages": said("hello " * 5000)}, GREETING | {"tools": ["calculatr"]})
    asked: list[tuple[int, int]] = []
    with pytest.raises(ConfigError) as found:
        run_suite(engine, suite, on_progress=lambda done, total: asked.append((done, total)))
    long, unknown = found.value.problems
    assert long.startswith('suite "small", probe "p1": the prompt holds ')
    assert unknown.startswith('suite "small", probe "p2": unknown tool "calculatr"; known are ')
    assert all(done == 0 for done, _ in asked)


def test_a_length_that_no_answer_has_is_refused() -> None:
    with pytest.raises(ConfigError, match="no length is at least 5 and at most 1"):
        make_suite(GREETING | {"checks": [{"kind": "answer_chars", "min": 5, "max": 1}]})
