"""Tasks from pools, generators and files."""

import json

import pytest

from gradus.conversation.messages import Conversation, Message
from gradus.conversation.probes import load_suite
from gradus.core.errors import ConfigError
from gradus.data.synthetic.config import ConversationSettings
from gradus.data.synthetic.conversations import checked_conversations
from gradus.posttrain.tasks import load_tasks, tasks_from_generator, tasks_from_pool, with_switches

ROW = {
    "id": "a",
    "messages": [{"role": "user", "content": "17 + 25?"}],
    "checks": [{"kind": "answer_number", "value": 42}],
}


def written(tmp_path, *rows):
    path = tmp_path / "tasks.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


def test_a_file_of_tasks_is_read(tmp_path):
    path = written(
        tmp_path,
        ROW,
        "",
        ROW | {"id": "b", "think": True, "tools": ["calculator"], "answer": "42", "tests": "assert 1"},
    )
    first, second = load_tasks(path, "made")
    assert (first.id, first.answer, first.tests, first.source) == ("a", "", "", "made")
    assert first.prompt.conversation.messages[-1].content == "17 + 25?"
    assert (second.answer, second.tests, second.reference.answer) == ("42", "assert 1", "42")
    assert [tool.name for tool in second.prompt.conversation.tools] == ["calculator"]
    assert second.prompt.conversation.think is True


def test_every_problem_of_a_file_is_told_with_its_line(tmp_path):
    path = written(
        tmp_path, "{", ROW | {"checkz": []}, ROW, ROW, ROW | {"id": "c", "messages": []},
        ROW | {"id": "d", "tools": ["calculater"]},
        ROW | {"id": "e", "messages": [{"role": "assistant", "content": "x"}]}, "7",
    )  # fmt: skip
    with pytest.raises(ConfigError) as raised:
        load_tasks(path, "made")
    text = str(raised.value)
    for line, part in (
        (1, "not a line of JSON"), (2, 'did you mean "checks"?'), (4, 'id "a" is used on line 3 too'), (5, "messages"),
        (6, 'did you mean "calculator"?'), (7, "the last message must be the user's"), (8, "id"),
    ):  # fmt: skip
        assert any(f"{path}:{line}: " in problem and part in problem for problem in raised.value.problems), (line, text)


def test_an_empty_file_and_bytes_that_are_no_text_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="holds no task"):
        load_tasks(written(tmp_path, ""), "made")
    path = tmp_path / "bad.jsonl"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_tasks(path, "made")


def test_a_row_of_a_pool_asks_its_last_question_and_judges_by_its_answer():
    row = Conversation(
        (
            Message("user", "Hi"),
            Message("assistant", "Hello."),
            Message("user", "2 + 2?"),
            Message("assistant", "It is 4."),
        )
    )
    unfinished = Conversation((Message("user", "Hi"),))
    (only,) = tasks_from_pool([row, unfinished], "talk")
    assert [m.content for m in only.prompt.conversation.messages] == ["Hi", "Hello.", "2 + 2?"]
    assert (only.answer, only.source) == ("It is 4.", "talk")
    assert [check.kind for check in only.prompt.checks] == ["calls_none", "answer_number"]


def test_generated_tasks_are_of_one_category_and_of_one_side():
    train = list(tasks_from_generator("arithmetic", 60, 3, "train"))
    probes = list(tasks_from_generator("arithmetic", 60, 3, "probe"))
    assert {task.source for task in (*train, *probes)} == {"synthetic:arithmetic"}
    questions = [{t.prompt.conversation.messages[-1].content for t in side} for side in (train, probes)]
    assert all(task.prompt.checks for task in train)
    assert not questions[0] & questions[1]
    settings = ConversationSettings(rows=5, weights={"arithmetic": 1.0}, sessions_fraction=0.0)
    assert len(list(checked_conversations(settings, 3, "train"))) == 5
    with pytest.raises(ConfigError, match='did you mean "arithmetic"'):
        list(tasks_from_generator("arithmetik", 1, 3, "train"))


def test_without_tools_no_check_asks_for_a_call():
    tasks = list(tasks_from_generator("arithmetic", 40, 3, "train"))
    called = [task for task in tasks if any(check.kind == "calls" for check in task.prompt.checks)]
    assert called
    for task in called:
        bare = with_switches(task, True, ())
        assert bare.prompt.conversation.tools == ()
        assert bare.prompt.conversation.think is True
        assert {check.kind for check in bare.prompt.checks} == {check.kind for check in task.prompt.checks} - {"calls"}
        assert with_switches(task, None, None) == task


def test_a_line_separator_inside_a_question_ends_no_line(tmp_path):
    asked = "One\u2028two\x85three?"
    row = {"id": "a", "messages": [{"role": "user", "content": asked}], "checks": []}
    path = tmp_path / "tasks.jsonl"
    path.write_text(json.dumps(row, ensure_ascii=False) + "\r\n\n", encoding="utf-8", newline="")
    (only,) = load_tasks(path, "own")
    assert only.prompt.conversation.messages[-1].content == asked
    probe = row | {"category": "odd", "checks": [{"kind": "answer_number", "value": 1}]}
    path.write_text(json.dumps(probe, ensure_ascii=False) + "\n", encoding="utf-8")
    assert [probe.id for probe in load_suite(path).probes] == ["a"]
