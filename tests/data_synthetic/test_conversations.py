"""Conversations, probes and documents as a whole: valid, deterministic, varied, and disjoint by problem."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path

import pytest

from gradus.conversation.checks import AssistantTurn, run_checks
from gradus.conversation.messages import Conversation
from gradus.conversation.probes import load_suite
from gradus.conversation.validate import violations
from gradus.core.errors import ConfigError, DataError
from gradus.core.settings import load_settings
from gradus.data.synthetic import trained_suite
from gradus.data.synthetic.config import CATEGORIES, ConversationSettings
from gradus.data.synthetic.conversations import GENERATORS, checked_conversations, conversations, probe_items
from gradus.data.synthetic.documents import documents
from gradus.data.synthetic.item import side_of
from gradus.data.synthetic.uniqueness import uniqueness
from gradus.tools.calculator import calculate

SUITE = Path(__file__).parents[2] / "roadmaps" / "probes" / "trained.jsonl"


@pytest.fixture(scope="module")
def rows() -> list[Conversation]:
    return list(conversations(ConversationSettings(rows=4_000), seed=5))


def test_every_conversation_is_valid(rows: list[Conversation]) -> None:
    assert [(row.id, violations(row)) for row in rows if violations(row)] == []


def test_every_category_comes_by_its_weight(rows: list[Conversation]) -> None:
    weights = ConversationSettings().category_weights()
    assert tuple(weights) == CATEGORIES == tuple(GENERATORS)
    single = [row for row in rows if row.source != "synthetic/session"]
    assert len(single) / len(rows) == pytest.approx(1 - ConversationSettings().sessions_fraction, abs=0.02)
    for category, weight in weights.items():
        share = sum(row.source == f"synthetic/{category}" for row in single) / len(single)
        assert share == pytest.approx(weight / sum(weights.values()), abs=0.02)


def test_tool_results_are_the_calculators_own(rows: list[Conversation]) -> None:
    calls = 0
    for row in rows:
        for message, result in zip(row.messages, row.messages[1:], strict=False):
            for call in message.tool_calls:
                calls += 1
                assert result.content == calculate(call.arguments["expression"])
                assert not result.content.startswith("error")
    assert calls > 1_000


def test_the_same_seed_gives_the_same_rows() -> None:
    settings = ConversationSettings(rows=300)
    assert list(conversations(settings, 1)) == list(conversations(settings, 1))
    assert list(conversations(settings, 1)) != list(conversations(settings, 2))
    assert probe_items(settings, 1, 3) == probe_items(settings, 1, 3)


def test_earlier_answers_of_a_probe_state_their_results() -> None:
    rows = probe_items(ConversationSettings(weights=dict.fromkeys(CATEGORIES, 0.0) | {"follow_up": 1.0}), 1, 300)
    told = [message["content"] for row in rows for message in row.get("messages", [])]
    assert any(text.startswith("The answer is ") for text in told)
    assert not [text for text in told if "{" in text]


def test_training_and_probes_never_share_a_question() -> None:
    training = {question(row) for row in conversations(ConversationSettings(rows=3_000), 9)}
    probes = {question(row) for row in conversations(ConversationSettings(rows=500), 9, side="probe")}
    assert not training & probes


def test_training_and_probes_never_share_a_calculation_or_a_word() -> None:
    def problems(side: str, rows: int) -> dict[str, set[str]]:
        found = defaultdict(set)
        for row in conversations(ConversationSettings(rows=rows), 3, side=side):
            category = row.source.partition("/")[2]
            last = row.messages[-1]
            calls = [call.arguments["expression"] for message in row.messages for call in message.tool_calls]
            if category in ("percent", "word_problem", "age"):
                found[category].update(calls)
            elif category == "spelling":
                found[category].add(last.content)
        return found

    training, probes = problems("train", 3_000), problems("probe", 600)
    for category in ("percent", "word_problem", "age", "spelling"):
        assert probes[category]
        assert not training[category] & probes[category]


def test_what_goes_on_from_earlier_problems_trains_no_problem_of_the_probes() -> None:
    weights = dict.fromkeys(CATEGORIES, 0.0) | {"follow_up": 1.0}
    sides: dict[str, list[str]] = defaultdict(list)
    for row in conversations(ConversationSettings(rows=2_000, weights=weights), 4):
        for message in row.messages:
            if message.role != "assistant" or not message.train:
                continue
            thinking = message.reasoning_content or ""
            if re.fullmatch("[a-z](-[a-z])+", message.content):
                sides["spelling"].append(side_of(f"spelling|{message.content.replace('-', '')}"))
            if found := re.match("([a-z]) in ([a-z]+): ", thinking):
                sides["letter_count"].append(side_of(f"letter_count|{found[2]}|{found[1]}"))
            if found := re.match(r"(\w+) is \d\. (Forward|Back) (\d+)( \* 7)?:", thinking):
                days = int(found[3]) * (7 if found[4] else 1) * (1 if found[2] == "Forward" else -1)
                sides["weekday"].append(side_of(f"weekday|{found[1]}|{days}"))
    for category in ("spelling", "letter_count", "weekday"):
        assert len(sides[category]) > 100
        assert set(sides[category]) == {"train"}


def question(row: Conversation) -> str:
    return "\n".join(message.content for message in row.messages if message.role == "user")


def test_own_answers_pass_their_own_checks(tmp_path: Path) -> None:
    import random

    from gradus.data.synthetic.conversations import _fresh_item, _messages, item_checks
    from gradus.data.synthetic.item import Persona
    from gradus.tools.toolbox import ToolBox

    rng = random.Random(8)
    rows = []
    for category in CATEGORIES:
        for number in range(30):
            item = _fresh_item(category, rng, Persona("Ada", "the makers"), "probe", set())
            messages = list(_messages(item.turns, ToolBox()))
            last = max(index for index, message in enumerate(messages) if message.role == "user")
            probe = {
                "id": f"{category}-{number}",
                "messages": [{"role": "user", "content": "x"}],
                "checks": item_checks(item),
            }
            rows.append((probe, AssistantTurn(tuple(messages[last + 1 :]), "stop")))
    path = tmp_path / "suite.jsonl"
    path.write_text("".join(json.dumps(probe) + "\n" for probe, _ in rows))
    for probe, (_, turn) in zip(load_suite(path).probes, rows, strict=True):
        assert run_checks(probe.checks, turn) == [], (probe.id, turn)


def test_checked_rows_are_the_same_rows_with_checks_that_pass() -> None:
    settings = ConversationSettings(rows=200)
    checked = list(checked_conversations(settings, 4))
    assert [row for row, _ in checked] == list(conversations(settings, 4))
    assert all({"kind": "stops"} in checks and len(checks) > 1 for _, checks in checked)


def test_the_persona_is_the_settings_own() -> None:
    settings = ConversationSettings(rows=200, name="Ada", maker="the makers", weights={"identity": 1000.0})
    texts = [row.messages[-1].content for row in conversations(settings, 1) if row.source.endswith("identity")]
    assert any("Ada" in text for text in texts)
    assert any("the makers" in text for text in texts)
    assert not any("Gradus" in text or "{" in text for text in texts)


def test_unknown_categories_and_empty_mixtures_are_refused() -> None:
    with pytest.raises(ConfigError, match='unknown category "percnt"; did you mean "percent"'):
        load_settings(ConversationSettings, {"weights": {"percnt": 1.0}})
    with pytest.raises(ConfigError, match="age must not be negative, found -1"):
        load_settings(ConversationSettings, {"weights": {"age": -1.0}})
    with pytest.raises(ConfigError, match="at least one category"):
        load_settings(ConversationSettings, {"weights": dict.fromkeys(CATEGORIES, 0.0)})


def test_a_category_of_weight_zero_is_left_out() -> None:
    settings = ConversationSettings(rows=300, weights={"age": 0.0, "direct": 0.0})
    assert not {row.source for row in conversations(settings, 1)} & {"synthetic/age", "synthetic/direct"}
    assert {row["category"] for row in probe_items(settings, 1, 1)} == set(CATEGORIES) - {"age", "direct"}


@pytest.mark.slow
def test_fifty_thousand_rows_are_nearly_all_different() -> None:
    found = uniqueness(conversations(ConversationSettings(rows=50_000), 1))
    assert found.rows == 50_000
    assert found.conversations >= 0.99
    assert found.questions >= 0.99
    assert found.last_questions >= 0.90
    assert min(found.by_category.values()) >= 0.90


def test_uniqueness_counts_repeats(rows: list[Conversation]) -> None:
    assert uniqueness([rows[0], rows[0], rows[1], rows[2]]).conversations == 0.75
    assert uniqueness(rows).questions > 0.99


def test_the_committed_suite_is_what_the_templates_give_and_has_a_hundred_each() -> None:
    suite = load_suite(SUITE)
    counts = defaultdict(int)
    for probe in suite.probes:
        counts[probe.category] += 1
    assert set(counts) == set(CATEGORIES)
    assert min(counts.values()) >= 100
    assert SUITE.read_text() == trained_suite.suite_text(trained_suite.DEFAULT_PER_CATEGORY, trained_suite.DEFAULT_SEED)


def test_the_suite_is_written_by_its_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "suite.jsonl"
    assert trained_suite.main([str(path), "--per-category", "2", "--seed", "1"]) == 0
    assert len(load_suite(path).probes) == 22
    assert capsys.readouterr().out == f"{path}: 22 probes\n"


def test_documents_are_deterministic_different_and_free_of_control_tokens() -> None:
    texts = [document.text for document in documents("primer", 1_500, 1)]
    assert texts == [document.text for document in documents("primer", 1_500, 1)]
    assert len(set(texts)) / len(texts) > 0.99
    assert not any("<|" in text or "<think>" in text or "{" in text for text in texts)
    ids = [document.id for document in documents("primer", 50, 2)]
    assert len(set(ids)) == 50


def test_documents_leave_out_the_words_that_probes_spell() -> None:
    from gradus.data.synthetic.item import side_of
    from gradus.data.synthetic.letters import spelled
    from gradus.data.synthetic.words import spelling_words

    held_back = {f"{word}: {spelled(word)}" for word in spelling_words() if side_of(f"spelling|{word}") == "probe"}
    lines = {line for document in documents("primer", 1_500, 1) for line in document.text.splitlines()}
    assert len(held_back) > 100
    assert not held_back & lines


def test_an_unknown_source_is_refused() -> None:
    with pytest.raises(DataError, match='unknown name "primmer"; did you mean "primer"'):
        next(documents("primmer", 1, 1))
