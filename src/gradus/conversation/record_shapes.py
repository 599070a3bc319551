"""One row of a data set in any of the known shapes, as conversations or a preference pair.

A shape is known by its keys; the first match of SHAPES is taken, or the one that is named. A converter raises DataError
with the reason where a row cannot be used, and gives RowError for a part of a row that cannot.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from gradus.conversation.calculator_marks import CALCULATOR, RunTool
from gradus.conversation.message_trees import best_path_of_tree
from gradus.conversation.messages import Conversation, JsonObject, Pair, arguments_from_json, messages_from_json
from gradus.conversation.preference_shapes import (
    from_asked_preference,
    from_judged_solutions,
    from_preference,
    from_whole_sides,
    pair,
)
from gradus.conversation.reasoning_shapes import (
    from_choices,
    from_long_solution,
    from_question,
    from_reasoning,
    from_solution,
    from_thinking_apart,
)
from gradus.conversation.record_values import (
    Row,
    RowError,
    answer_of,
    declared_tools,
    exchange,
    first_of,
    json_of,
    list_of,
    text_of,
    with_thinking_apart,
)
from gradus.conversation.tool_shapes import (
    from_bfcl,
    from_glaive_text,
    from_golden_calls,
    from_schema_guided,
    from_taskmaster,
    from_tool_alpaca,
    from_tool_use,
)
from gradus.core.errors import DataError

Converted = Conversation | Pair | RowError


@dataclass(frozen=True)
class Shape:
    """A layout of rows: its name, the keys by which it is known, and what makes conversations of it."""

    name: str
    keys: tuple[str, ...]
    convert: Callable[[Row, RunTool | None], Iterator[Converted]]


def convert_row(row: Row, run_tool: RunTool | None = None, shape: str | None = None) -> Iterator[Converted]:
    """The conversations or the pair in a row, and a RowError for each part that cannot be used.

    shape: its name, where the keys do not tell. Errors: DataError where the shape is unknown or the row cannot be used.
    """
    for known in SHAPES:
        if known.name == shape if shape else all(row.get(key) is not None for key in known.keys):
            missing = [key for key in known.keys if row.get(key) is None]
            if missing:
                raise RowError("other_shape", f"shape {known.name} wants {', '.join(missing)}; keys {_keys(row)}")
            for item in known.convert(row, run_tool):
                yield _checked(item)
            return
    raise RowError("unknown_shape", f"unknown shape: keys {_keys(row)}")


def _keys(row: Row) -> str:
    return ", ".join(map(str, row)) or "none"


def _checked(item: Converted) -> Converted:
    if isinstance(item, Pair):
        if not any(m.content.strip() or m.tool_calls for m in item.chosen):
            raise RowError("no_answer", "the chosen side is empty")
        if item.chosen == item.rejected:
            raise RowError("same_answers", "chosen and rejected are the same")
    elif isinstance(item, Conversation):
        users = [m for m in item.messages if m.role == "user"]
        answers = [m for m in item.messages if m.role == "assistant"]
        if not users or not all(m.content.strip() for m in users):
            raise RowError("no_question", "a user message is missing or empty")
        if not answers or not all(m.content.strip() or m.tool_calls for m in answers):
            raise RowError("no_answer", "an answer is missing or empty")
    return item


def _refused(reason: str, detail: str) -> Callable[[Row, RunTool | None], Iterator[Converted]]:
    """For layouts that are known to hold no conversation."""

    def convert(row: Row, run_tool: RunTool | None) -> Iterator[Converted]:
        yield RowError(reason, detail)

    return convert


# --- {messages}: OpenAI, ours, typed parts, KTO labels


def _from_messages(row: Row, run_tool: RunTool | None) -> Iterator[Converted]:
    if row.get("label") is False:
        raise RowError("undesirable_answer", "labelled as an undesirable answer (label: false)")
    messages = row["messages"]
    if not isinstance(messages, Sequence) or isinstance(messages, str):
        raise DataError("messages: expected a list")
    plain: list[JsonObject] = []
    for index, message in enumerate(messages):
        plain += _plain_messages(message, f"messages[{index}]")
    read = with_thinking_apart(messages_from_json(plain, "messages"))
    tools = declared_tools(row.get("tools"))
    if not tools and any(call.name == CALCULATOR.name for message in read for call in message.tool_calls):
        tools = (CALCULATOR,)
    think = row.get("think")
    yield Conversation(
        read,
        tools,
        source=text_of(row.get("source")),
        id=text_of(row.get("id")),
        think=think if isinstance(think, bool) else None,
    )


def _plain_messages(message: object, where: str) -> list[JsonObject]:
    """One message, with content given as parts spelled out; calculator parts split it into several."""
    if not isinstance(message, Mapping):
        raise DataError(f"{where}: expected an object with role and content")
    content = message.get("content")
    if not isinstance(content, list):
        return [dict(message)]
    out: list[JsonObject] = []
    now: JsonObject = {**message, "content": ""}
    for part in content:
        if not isinstance(part, Mapping) or not isinstance(text := part.get("text", part.get("value")), str):
            raise DataError(f"{where}.content: expected parts with type and text")
        match part.get("type"):
            case "text":
                now["content"] += text
            case "reasoning" | "thinking":
                now["reasoning_content"] = text_of(now.get("reasoning_content")) + text
            case "tool_call":
                before = list_of(now.get("tool_calls"), f"{where}.tool_calls", least=0)
                now["tool_calls"] = [*before, arguments_from_json(text, f"{where}.content")]
            case "python":  # nanochat's calculator: an expression, its output, and on in the same message
                now["tool_calls"] = [{"name": CALCULATOR.name, "arguments": {"expression": text}}]
            case "python_output":
                out += [now, {"role": "tool", "content": text}]
                now = {"role": "assistant", "content": ""}
            case other:
                raise DataError(f"{where}.content: unknown part type {other!r}")
    return [*out, now]


# --- ShareGPT


def _from_sharegpt(row: Row, run_tool: RunTool | None) -> Iterator[Converted]:
    turns = row["conversations"]
    if not isinstance(turns, Sequence) or isinstance(turns, str):
        raise DataError("conversations: expected a list")
    rows = [_sharegpt_message(turn, f"conversations[{index}]") for index, turn in enumerate(turns)]
    if system := row.get("system"):
        rows.insert(0, {"role": "system", "content": system})
    messages = messages_from_json(rows, "conversations")
    conversation = Conversation(messages, declared_tools(row.get("tools")), id=text_of(row.get("id")))
    if row.get("chosen") is not None and row.get("rejected") is not None:
        sides = [
            with_thinking_apart(messages_from_json([_sharegpt_message(row[k], k)], k)) for k in ("chosen", "rejected")
        ]
        yield Pair(conversation, sides[0], sides[1], id=conversation.id)
    else:
        yield replace(conversation, messages=with_thinking_apart(messages))


_SHAREGPT_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bard": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "system": "system",
    "observation": "tool",
    "tool": "tool",
    "function_response": "tool",
}


def _sharegpt_message(turn: object, where: str) -> JsonObject:
    if not isinstance(turn, Mapping):
        raise DataError(f"{where}: expected an object with from and value")
    speaker, value = turn.get("from"), turn.get("value", turn.get("markdown"))
    if not isinstance(value, str):
        raise DataError(f"{where}: expected an object with from and value")
    if speaker == "function_call":
        calls = json_of(value, where)
        return {
            "role": "assistant",
            "content": "",
            "tool_calls": calls if isinstance(calls, list) else [calls],
        }
    role = _SHAREGPT_ROLES.get(speaker) if isinstance(speaker, str) else None
    if role is None:
        raise DataError(f"{where}.from: unknown speaker {speaker!r}")
    return {"role": role, "content": value}


# --- instructions


def _from_instruction(row: Row, run_tool: RunTool | None) -> Iterator[Converted]:
    """{instruction, input or context, output or response}, or a chosen and a rejected answer."""
    question = _asked(row["instruction"], row.get("input") or row.get("context"))
    if row.get("chosen") is not None and row.get("rejected") is not None:
        yield pair(question, row["chosen"], row["rejected"], row)
        return
    yield exchange(question, answer_of(text_of(first_of(row, "output", "response"))), row)


def _from_instances(row: Row, run_tool: RunTool | None) -> Iterator[Converted]:
    """self-instruct: one instruction with several inputs."""
    instances = row["instances"]
    if not isinstance(instances, list) or not instances:
        raise DataError("instances: expected a list of inputs and outputs")
    for instance in instances:
        if not isinstance(instance, Mapping):
            raise DataError("instances: expected objects with input and output")
        question = _asked(row["instruction"], instance.get("input"))
        yield exchange(question, answer_of(text_of(instance.get("output"))), row)


def _asked(instruction: object, given: object) -> str:
    """Instruction and input as one message, as their data sets mean them."""
    text, extra = text_of(instruction).strip(), text_of(given).strip()
    return text if extra.lower() in ("", "<noinput>", "nan") else f"{text}\n\n{extra}"


_ALPACA_PROMPT = re.compile(
    r"Below is an instruction.*?### Instruction:\s*(.*?)(?:\s*### Input:\s*(.*?))?\s*### Response:\s*",
    re.DOTALL,
)


def _from_prompt(row: Row, run_tool: RunTool | None) -> Iterator[Converted]:
    """{prompt, answer}; a prompt already written in Alpaca's frame is taken out of it."""
    answer = first_of(row, "answer", "completion", "response", "output")
    if answer is None:
        raise DataError("a prompt without an answer")
    prompt = text_of(row["prompt"])
    framed = _ALPACA_PROMPT.fullmatch(prompt)
    yield exchange(_asked(framed[1], framed[2]) if framed else prompt, answer_of(text_of(answer)), row)


def _from_question_response(row: Row, run_tool: RunTool | None) -> Iterator[Converted]:
    """{system_prompt, question, response} (OpenOrca)."""
    yield exchange(text_of(row["question"]), answer_of(text_of(row["response"])), row)


# --- OASST


def _from_tree(row: Row, run_tool: RunTool | None) -> Iterator[Converted]:
    yield best_path_of_tree(row)


_NO_ANSWER = _refused("no_answer", "questions without answers")
_NO_QUESTION = _refused("no_question", "answers without their questions")
_NO_CONVERSATION = _refused("not_a_conversation", "a declaration or a golden answer, which others refer to")

# Preferences before what they may hold besides; the more keys the earlier.
SHAPES: tuple[Shape, ...] = (
    Shape("sharegpt", ("conversations",), _from_sharegpt),
    Shape("tree", ("prompt", "message_tree_id"), _from_tree),
    Shape("preference", ("prompt", "chosen", "rejected"), from_preference),
    Shape("instruction_preference", ("instruction", "chosen", "rejected"), _from_instruction),
    Shape("question_preference", ("question", "chosen", "rejected"), from_asked_preference),
    Shape("input_preference", ("input", "chosen", "rejected"), from_asked_preference),
    Shape("whole_preference", ("chosen", "rejected"), from_whole_sides),
    Shape("judged_solutions", ("question", "ground_truth", "175b_verification"), from_judged_solutions),
    Shape("messages", ("messages",), _from_messages),
    Shape("instances", ("instruction", "instances"), _from_instances),
    Shape("instruction", ("instruction", "output"), _from_instruction),
    Shape("instruction_response", ("instruction", "response"), _from_instruction),
    Shape("reasoning", ("question", "reasoning", "answer"), from_reasoning),
    Shape("ollama_thinking", ("problem", "message_thinking", "message_content"), from_thinking_apart),
    Shape("deepseek_thinking", ("problem", "deepseek_reasoning", "deepseek_solution"), from_thinking_apart),
    Shape("tool_use", ("user_message", "assistant_response"), from_tool_use),
    Shape("glaive", ("system", "chat"), from_glaive_text),
    Shape("schema_guided", ("dialogue_id", "turns"), from_schema_guided),
    Shape("taskmaster", ("conversation_id", "utterances"), from_taskmaster),
    Shape("tool_alpaca", ("Function_Description", "Instructions", "Golden_Answers"), from_tool_alpaca),
    Shape("golden_calls", ("query", "tools", "answers"), from_golden_calls),
    Shape("bfcl", ("id", "question", "function"), from_bfcl),
    Shape("bfcl_simulated", ("id", "question", "involved_classes"), from_bfcl),
    Shape("choices", ("question", "options", "rationale", "correct"), from_choices),
    Shape("generated_solution", ("problem", "generated_solution"), from_solution),
    Shape("problem_solution", ("problem", "solution"), from_solution),
    Shape("question_solution", ("question", "solution"), from_solution),
    Shape("long_solution", ("question", "solution", "answer"), from_long_solution),
    Shape("question", ("question", "answer"), from_question),
    Shape("problem", ("problem", "answer"), from_question),
    Shape("question_response", ("question", "response"), _from_question_response),
    Shape("prompt", ("prompt",), _from_prompt),
    Shape("questions_alone", ("question_id", "turns"), _NO_ANSWER),
    Shape("answers_alone", ("question_id", "choices"), _NO_QUESTION),
    Shape("declaration", ("name", "description", "parameters"), _NO_CONVERSATION),
    Shape("golden_answers", ("id", "ground_truth"), _NO_CONVERSATION),
)
SHAPE_NAMES = tuple(shape.name for shape in SHAPES)
