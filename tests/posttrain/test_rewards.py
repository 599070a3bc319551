"""Rewards: what earns them, and what a model could write instead of solving the task."""

import pytest
from pydantic import TypeAdapter, ValidationError

from gradus.conversation.checks import AnswerNumber, AssistantTurn
from gradus.conversation.messages import Conversation, Message, ToolCall
from gradus.core.errors import DataError
from gradus.posttrain.prompts import PairPrompt
from gradus.posttrain.rewards import REWARD_KINDS, Reward, check_tasks, score
from gradus.posttrain.tasks import Task
from gradus.tools.toolbox import ToolBox

READ = TypeAdapter(Reward)
TOOLS = ToolBox().schemas(["calculator"])


def call(expression, number=1, name="calculator", **more):
    return ToolCall(f"call_{number}", name, {"expression": expression, **more})


def task(answer="", *, checks=(), tests="", reference=None, tools=TOOLS):
    turn = reference if reference is not None else (Message("assistant", answer),) if answer else ()
    conversation = Conversation((Message("user", "?"),), tools, "made", "t-1")
    return Task(PairPrompt(conversation, tuple(checks), tuple(turn)), answer, tests, "made")


def said(text="", thinking=None, *calls, finish="stop", problems=()):
    return AssistantTurn((Message("assistant", text, thinking, tuple(calls)),), finish, tuple(problems))


def earned(rewards, asked, turn):
    found = [READ.validate_python(reward) for reward in rewards]
    return score(found, asked, turn)


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("9 * 2 = 18\n#### 18", 1), ("#### 18 eggs", 1), ("#### 018", 0), ("#### 18.0", 0), ("18", 0), ("#### ", 0),
        # Every number at once, or one after another: the first counts.
        ("#### 1 #### 2 #### 18", 0), ("#### 17\n#### 18", 0), ("#### 1,8", 1), ("#### -18", 0),
    ],
)  # fmt: skip
def test_gsm8k_asks_for_the_number_behind_four_hashes(text, reward):
    assert earned([{"kind": "gsm8k"}], task("It is 9 * 2.\n#### 18"), said(text)).reward == reward


def test_gsm8k_reads_references_as_imported_pools_write_them():
    assert earned([{"kind": "gsm8k"}], task("It is 9 * 2.\nThe answer is 1,018."), said("#### 1018")).reward == 1


def test_a_right_number_in_the_thinking_earns_nothing():
    for kind, text in (("gsm8k", "#### 18"), ("math", r"\boxed{18}")):
        assert earned([{"kind": kind}], task("#### 18"), said("I do not know.", text)).reward == 0


@pytest.mark.parametrize(
    ("gold", "text", "reward"),
    [
        (r"so \boxed{\frac{1}{2}}", r"\boxed{0.5}", 1), (r"\boxed{(1,2)}", r"It is \boxed{(1, 2)}.", 1),
        ("3/4", r"\boxed{0.75}", 1), ("#### 12", r"\boxed{12}", 1), (r"\boxed{x^2}", r"\boxed{x^2}", 1),
        (r"\boxed{7}", "7", 0), (r"\boxed{7}", r"\boxed{7 or 8}", 0), (r"\boxed{7}", r"\boxed{7}\boxed{8}", 0),
        (r"\boxed{7}", r"\boxed{}", 0), (r"\boxed{7}", r"\boxed{7", 0), (r"\boxed{7}", r"\boxed{\boxed{8}7}", 0),
        (r"\boxed{1000}", r"\boxed{10**3}", 0), (r"\boxed{1}", r"\boxed{1" + "0" * 5000 + "}", 0),
    ],
)  # fmt: skip
def test_mathematics_asks_for_the_boxed_value(gold, text, reward):
    assert earned([{"kind": "math"}], task(gold), said(text)).reward == reward


def test_mathematics_can_take_the_last_number_instead():
    rewards = [{"kind": "math", "final": "last_number"}]
    assert earned(rewards, task("It costs $18.50 in all."), said("That makes 18.5 dollars")).reward == 1
    assert earned(rewards, task("It costs $18.50 in all."), said("18.5, or 19")).reward == 0


def test_a_pattern_is_found_in_the_answer_and_its_group_is_the_value():
    assert earned([{"kind": "regex", "pattern": r"(?m)^Answer: \d+$"}], task(), said("So\nAnswer: 5")).reward == 1
    named = [{"kind": "regex", "pattern": r"\AThe answer is (?P<answer>\S+)\.\Z"}]
    assert earned(named, task("42"), said("The answer is 42.0.")).reward == 1
    assert earned(named, task("42"), said("The answer is 41.")).reward == 0
    assert earned(named, task("42"), said("The answer is 42. The answer is 41.")).reward == 0


SCHEMA = {
    "type": "object", "required": ["name", "age"], "additionalProperties": False,
    "properties": {"name": {"type": "string", "minLength": 1}, "age": {"type": "integer", "minimum": 0}},
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ('{"name": "Ada", "age": 36}', 1), ('```json\n{"name": "Ada", "age": 36}\n```', 1),
        (' {"name": "Ada", "age": 36}\n', 1), ('{"name": "Ada"}', 0), ('{"name": "Ada", "age": "36"}', 0),
        ('{"name": "Ada", "age": 36, "x": 1}', 0), ('{"name": "Ada", "age": -1}', 0), ("", 0), ("null", 0),
        ('Here: {"name": "Ada", "age": 36}', 0), ('{"name": "Ada", "age": 36} {"name": "Ada", "age": 36}', 0),
        ('{"name": "Ada", "age": NaN}', 0), ("{" * 100_000, 0), ("[" * 100_000, 0),
        ('{"name": "Ada", "age": 1e400}', 0),
        ('```json\n{}\n```\n```json\n{"name": "Ada", "age": 36}\n```', 0),
    ],
)  # fmt: skip
def test_the_answer_is_one_json_document_that_satisfies_the_schema(text, reward):
    assert earned([{"kind": "json_schema", "schema": SCHEMA}], task(), said(text)).reward == reward


def test_a_schema_that_is_none_is_refused_when_it_is_written():
    with pytest.raises(ValidationError, match="no JSON schema"):
        READ.validate_python({"kind": "json_schema", "schema": {"type": "thing"}})
    with pytest.raises(ValidationError, match="not a regular expression"):
        READ.validate_python({"kind": "regex", "pattern": "("})


def test_a_call_is_right_by_name_and_arguments_and_by_number():
    reference = (
        Message("assistant", "", None, (call("2 * 3"),)),
        Message("tool", "6", tool_call_id="call_1"),
        Message("assistant", "6."),
    )
    asked, exact = task(reference=reference), [{"kind": "tool_call"}]
    assert earned(exact, asked, said("", None, call("2 * 3"))).reward == 1
    assert earned(exact, asked, said("6.")).reward == 0
    assert earned(exact, asked, said("", None, call("3 * 2"))).reward == 0
    assert earned([{"kind": "tool_call", "name_credit": 0.2}], asked, said("", None, call("3 * 2"))).reward == 0.2
    assert earned(exact, asked, said("", None, call("2 * 3", name="search"))).reward == 0
    # Calling everything there is, in the hope that something was right.
    assert earned(exact, asked, said("", None, call("2 * 3"), call("3 * 2", 2))).reward == 0
    assert earned(exact, asked, said("", None, call("2 * 3", extra=None))).reward == 0
    assert earned(exact, asked, said('<tool_call>{"name": "calculator"}</tool_call>')).reward == 0


def test_arguments_are_equal_as_json():
    def asked(**arguments):
        return task(reference=(Message("assistant", "", None, (ToolCall("a", "t", arguments),)),))

    def made(**arguments):
        return said("", None, ToolCall("b", "t", arguments))

    exact = [{"kind": "tool_call"}]
    assert earned(exact, asked(x=1, y=[{"z": "q"}]), made(y=[{"z": "q"}], x=1.0)).reward == 1
    assert earned(exact, asked(x=1), made(x=True)).reward == 0
    assert earned(exact, asked(x=[1, 2]), made(x=[2, 1])).reward == 0
    assert earned(exact, asked(x="1"), made(x=1)).reward == 0


def test_checks_are_those_of_the_task_and_of_every_turn():
    asked = task(checks=[AnswerNumber(kind="answer_number", value=42)])
    rewards = [{"kind": "checks"}]
    assert earned(rewards, asked, said("It is 42.")).reward == 1
    assert earned(rewards, asked, said("It is 41.")).reward == 0
    assert earned(rewards, asked, said("It is 42.", finish="length")).reward == 0
    assert earned(rewards, asked, said("It is 42.", problems=["a call that is no JSON"])).reward == 0
    assert earned(rewards, asked, said("It is 42. <think>", "thought")).reward == 0


@pytest.mark.parametrize(
    ("turn", "reward"),
    [
        (said("42.", "6 times 7 is 42."), 1), (said("42."), 0), (said("42.", ""), 0), (said("42.", "   "), 0),
        (said("42.", "short"), 0), (said("", "6 times 7 is 42."), 0),
        (said("42.", "6 times 7 is 42.", finish="length"), 0),
        (said("42. </think>", "6 times 7 is 42."), 0),
        (said("42.", "6 times 7 is 42.", problems=["think opened twice"]), 0),
    ],
)  # fmt: skip
def test_thinking_is_paid_for_where_it_is_there_and_closed(turn, reward):
    assert earned([{"kind": "think", "min_chars": 8}], task(), turn).reward == reward


def test_rewards_add_up_by_weight_and_a_pass_needs_all_of_them():
    rewards = [{"kind": "math", "weight": 2.0}, {"kind": "think", "weight": 0.5}]
    both = earned(rewards, task(r"\boxed{4}"), said(r"\boxed{4}", "2 + 2"))
    half = earned(rewards, task(r"\boxed{4}"), said(r"\boxed{4}"))
    assert (both.reward, both.passed) == (2.5, True)
    assert (half.reward, half.passed, half.scores) == (2.0, False, {"math": 1.0, "think": 0.0})


@pytest.mark.usefixtures("sandboxed")
@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("```python\ndef add(a, b):\n    return a + b\n```", 1), ("def add(a, b): return a + b", 1),
        ("First\n```\nx = 1\n```\nthen\n```python\ndef add(a, b):\n    return a + b\n```\nDone.", 1),
        ("```python\ndef add(a, b):\n    return a - b\n```", 0), ("```python\nimport os\nos._exit(0)\n```", 0),
        ("I would add them.", 0), ("", 0), ("```python\ndef add(a, b):\n    while True: pass\n```", 0),
        ("```python\nclass All:\n    def __eq__(self, other): return True\ndef add(a, b): return All()\n```", 0),
    ],
)  # fmt: skip
def test_a_program_is_paid_for_where_its_tests_pass(text, reward):
    asked = task(tests="assert add(2, 3) == 5\nassert add(-1, 1) == 0")
    assert earned([{"kind": "code", "seconds": 1.0}], asked, said(text)).reward == reward


def test_every_kind_of_the_table_is_named_for_the_figures():
    kinds = {READ.validate_python({"kind": kind, **more}).kind for kind, more in MINIMAL.items()}
    assert kinds == set(REWARD_KINDS)


MINIMAL = {kind: {} for kind in REWARD_KINDS} | {"regex": {"pattern": "x"}, "json_schema": {"schema": {}}}


@pytest.mark.parametrize(
    ("kind", "lacks"),
    [
        ("checks", "checks"), ("gsm8k", 'an answer with "#### N"'), ("math", "a final answer"), ("code", "tests"),
        ("tool_call", "a reference turn"),
    ],
)  # fmt: skip
def test_a_task_that_cannot_be_judged_is_refused_before_anything_is_sampled(kind, lacks):
    reward = READ.validate_python({"kind": kind})
    with pytest.raises(DataError) as raised:
        check_tasks([reward], [task()])
    assert str(raised.value) == (
        f'reward "{kind}" needs {lacks}: 1 of 1 tasks of made have none, "t-1" first; give them, or take another reward'
    )


@pytest.mark.parametrize("kind", ["think", "json_schema", "regex"])
def test_what_needs_nothing_of_a_task_takes_any(kind):
    check_tasks([READ.validate_python({"kind": kind, **MINIMAL[kind]})], [task()])
