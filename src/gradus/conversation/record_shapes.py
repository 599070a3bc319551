"""One row of a data set in any of the known shapes, as conversations or a preference pair.

A shape is known by its keys; the first match of SHAPES is taken. A converter raises DataError with the reason
where a row cannot be used.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from gradus.conversation.calculator_marks import CALCULATOR, RunTool, has_marks, worked_with_calls
from gradus.conversation.message_trees import best_path_of_tree
from gradus.conversation.messages import (
    Conversation,
    JsonObject,
    Message,
    Pair,
    ToolSchema,
    arguments_from_json,
    messages_from_json,
    tools_from_json,
)
from gradus.core.errors import DataError

Row = Mapping[str, Any]
Converted = Conversation | Pair


def convert_row(row: Row, run_tool: RunTool | None = None) -> Iterator[Converted]:
    """The conversations or the pair in a row; DataError where its shape is unknown or it cannot be used."""
    for keys, convert in SHAPES:
        if all(key in row for key in keys):
            for item in convert(row, run_tool):
                _check_usable(item)
                yield item
            return
    raise DataError(f"unknown shape: keys {', '.join(map(str, row)) or 'none'}")


def _check_usable(item: Converted) -> None:
    if isinstance(item, Pair):
        if not any(m.content.strip() or m.tool_calls for m in item.chosen):
            raise DataError("the chosen side is empty")
        if item.chosen == item.rejected:
            raise DataError("chosen and rejected are the same")
        return
    users = [m for m in item.messages if m.role == "user"]
    answers = [m for m in item.messages if m.role == "assistant"]
    if not users or not all(m.content.strip() for m in users):
        raise DataError("a user message is missing or empty")
    if not answers or not all(m.content.strip() or m.tool_calls for m in answers):
        raise DataError("an answer is missing or empty")


# --- {messages}: OpenAI, ours, typed parts, KTO labels


def _from_messages(row: Row, run_tool: RunTool | None) -> Iterator[Converted]:
    if row.get("label") is False:
        raise DataError("labelled as an undesirable answer (label: false)")
    messages = row["messages"]
    if not isinstance(messages, Sequence) or isinstance(messages, str):
        raise DataError("messages: expected a list")
    plain: list[JsonObject] = []
    for index, message in enumerate(messages):
        plain += _plain_messages(message, f"messages[{index}]")
    tools = _tools(row)
    calls = {call["name"] for message in plain for call in message.get("tool_calls", ()) if "name" in call}
    if not tools and CALCULATOR.name in calls:
        tools = (CALCULATOR,)
    think = row.get("think")
    yield Conversation(
        messages_from_json(plain, "messages"),
        tools,
        source=_string(row.get("source")),
        id=_string(row.get("id")),
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
                now["reasoning_content"] = now.get("reasoning_content", "") + text
            case "tool_call":
                now.setdefault("tool_calls", []).append(arguments_from_json(text, f"{where}.content"))
            case "python":  # nanochat's calculator: an expression, its output, and on in the same message
                now["tool_calls"] = [{"name": CALCULATOR.name, "arguments": {"expression": text}}]
            case "python_output":
                out += [now, {"role": "tool", "content": text}]
                now = {"role": "assistant", "content": ""}
            case other:
                raise DataError(f"{where}.content: unknown part type {other!r}")
    return [*out, now]


_TYPE_NAMES = {
    "dict": "object",
    "str": "string",
    "int": "integer",
    "float": "number",
    "bool": "boolean",
    "list": "array",
    "tuple": "array",
}


def _tools(row: Row) -> tuple[ToolSchema, ...]:
    """The row's declared tools, with Python's type names (as in BFCL) put into JSON schema's."""
    tools = row.get("tools")
    if isinstance(tools, str) and tools:
        tools = _json_value(tools, "tools")
    return tools_from_json([_json_types(tool) for tool in tools] if isinstance(tools, list) else tools)


def _json_types(schema: object) -> object:
    if isinstance(schema, list):
        return [_json_types(part) for part in schema]
    if not isinstance(schema, Mapping):
        return schema
    out: JsonObject = {key: _json_types(value) for key, value in schema.items()}
    name = out.get("type")
    if isinstance(name, str):
        if name.lower() == "any":
            del out["type"]
        else:
            out["type"] = _TYPE_NAMES.get(name, name)
    return out


# --- ShareGPT


def _from_sharegpt(row: Row, run_tool: RunTool | None) -> Iterator[Converted]:
    turns = row["conversations"]
    if not isinstance(turns, Sequence) or isinstance(turns, str):
        raise DataError("conversations: expected a list")
    rows = [_sharegpt_message(turn, f"conversations[{index}]") for index, turn in enumerate(turns)]
    if system := row.get("system"):
        rows.insert(0, {"role": "system", "content": system})
    tools = _tools(row)
    conversation = Conversation(messages_from_json(rows, "conversations"), tools, id=_string(row.get("id")))
    if "chosen" in row and "rejected" in row:
        sides = [messages_from_json([_sharegpt_message(row[k], k)], k) for k in ("chosen", "rejected")]
        yield Pair(conversation, sides[0], sides[1], id=conversation.id)
    else:
        yield conversation


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
    if not isinstance(turn, Mapping) or not isinstance(turn.get("value"), str):
        raise DataError(f"{where}: expected an object with from and value")
    speaker, value = turn.get("from"), turn["value"]
    if speaker == "function_call":
        calls = _json_value(value, where)
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
    question = _asked(row["instruction"], row.get("input"))
    if "chosen" in row and "rejected" in row:
        yield _pair(question, row["chosen"], row["rejected"], row)
        return
    answer = next((row[key] for key in ("output", "response") if key in row), None)
    yield _exchange(question, _answer(answer), row)


def _from_instances(row: Row, run_tool: RunTool | None) -> Iterator[Converted]:
    """self-instruct: one instruction with several inputs."""
    instances = row["instances"]
    if not isinstance(instances, list) or not instances:
        raise DataError("instances: expected a list of inputs and outputs")
    for instance in instances:
        if not isinstance(instance, Mapping):
            raise DataError("instances: expected objects with input and output")
        question = _asked(row["instruction"], instance.get("input"))
        yield _exchange(question, _answer(instance.get("output")), row)


def _asked(instruction: object, given: object) -> str:
    """Instruction and input as one message, as their data sets mean them."""
    text, extra = _string(instruction).strip(), _string(given).strip()
    return text if extra.lower() in ("", "<noinput>", "nan") else f"{text}\n\n{extra}"


_TAGGED = re.compile(r"\s*<Thought>(.*?)</Thought>\s*<Output>(.*?)(?:</Output>)?\s*", re.DOTALL)


def _answer(text: object) -> Message:
    """An answer, with thinking where tags set it apart (Marco-o1)."""
    content = _string(text)
    if tagged := _TAGGED.fullmatch(content):
        return Message("assistant", tagged[2].strip(), tagged[1].strip())
    return Message("assistant", content)


_ALPACA_PROMPT = re.compile(
    r"Below is an instruction.*?### Instruction:\s*(.*?)(?:\s*### Input:\s*(.*?))?\s*### Response:\s*",
    re.DOTALL,
)


def _from_prompt(row: Row, run_tool: RunTool | None) -> Iterator[Converted]:
    """{prompt, answer}; a prompt already written in Alpaca's frame is taken out of it."""
    answer = next((row[key] for key in ("answer", "completion", "response", "output") if key in row), None)
    if answer is None:
        raise DataError("a prompt without an answer")
    prompt = _string(row["prompt"])
    framed = _ALPACA_PROMPT.fullmatch(prompt)
    yield _exchange(_asked(framed[1], framed[2]) if framed else prompt, _answer(answer), row)


# --- preferences


def _from_preference(row: Row, run_tool: RunTool | None) -> Iterator[Converted]:
    prompt = row["prompt"]
    if isinstance(prompt, Mapping):
        yield Pair.from_json(row)
    elif isinstance(prompt, list):
        conversation = Conversation(messages_from_json(prompt, "prompt"), tools_from_json(row.get("tools")))
        chosen, rejected = (_side(row[key], key) for key in ("chosen", "rejected"))
        yield Pair(conversation, chosen, rejected, id=_string(row.get("id")))
    else:
        yield _pair(_string(prompt), row["chosen"], row["rejected"], row)


def _pair(question: str, chosen: object, rejected: object, row: Row) -> Pair:
    prompt = Conversation((Message("user", question),))
    return Pair(prompt, _side(chosen, "chosen"), _side(rejected, "rejected"), id=_string(row.get("id")))


def _side(value: object, where: str) -> tuple[Message, ...]:
    """A continuation given as text, as a message, or as messages (whose prompt part is dropped)."""
    if isinstance(value, str):
        return (Message("assistant", value),)
    messages = messages_from_json([value] if isinstance(value, Mapping) else value, where)
    last_user = max((i for i, m in enumerate(messages) if m.role == "user"), default=-1)
    return messages[last_user + 1 :]


# --- questions with worked answers


def _from_reasoning(row: Row, run_tool: RunTool | None) -> Iterator[Converted]:
    answer = Message("assistant", _string(row["answer"]), _string(row["reasoning"]) or None)
    yield _exchange(_string(row["question"]), answer, row)


def _from_question(row: Row, run_tool: RunTool | None) -> Iterator[Converted]:
    """{question, answer}, with calculator marks as calls (GSM8K)."""
    question, answer = _string(row["question"]), _string(row["answer"])
    if has_marks(answer):
        messages = worked_with_calls(question, answer, run_tool)
        yield Conversation(messages, (CALCULATOR,), id=_string(row.get("id")))
    else:
        yield _exchange(question, Message("assistant", answer), row)


# --- tool use by parts


def _from_tool_use(row: Row, run_tool: RunTool | None) -> Iterator[Converted]:
    calls, results = row.get("tool_calls") or [], row.get("tool_results") or []
    if not isinstance(calls, list) or not isinstance(results, list) or len(calls) != len(results):
        raise DataError("tool_calls and tool_results: expected two lists of one length")
    thinking = row.get("reasoning", row.get("thinking"))
    messages: list[JsonObject] = [{"role": "user", "content": row["user_message"]}]
    if calls:
        messages.append({"role": "assistant", "content": "", "tool_calls": calls, "reasoning_content": thinking})
        messages += [{"role": "tool", "content": _result_text(result)} for result in results]
        thinking = None
    final = {"role": "assistant", "content": row["assistant_response"], "reasoning_content": thinking}
    tools = _tools(row)
    yield Conversation(messages_from_json([*messages, final], "messages"), tools, id=_string(row.get("id")))


def _result_text(result: object) -> str:
    if isinstance(result, Mapping):
        result = next((result[key] for key in ("content", "result", "output") if key in result), result)
    return result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)


# --- OASST


def _from_tree(row: Row, run_tool: RunTool | None) -> Iterator[Converted]:
    yield best_path_of_tree(row)


# --- small things


def _exchange(question: str, answer: Message, row: Row) -> Conversation:
    return Conversation((Message("user", question), answer), id=_string(row.get("id")))


def _string(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise DataError(f"expected text, found {type(value).__name__}")


def _json_value(text: str, where: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: expected JSON ({error})") from error


SHAPES: tuple[tuple[tuple[str, ...], Callable[[Row, RunTool | None], Iterator[Converted]]], ...] = (
    (("messages",), _from_messages),
    (("conversations",), _from_sharegpt),
    (("prompt", "message_tree_id"), _from_tree),
    (("prompt", "chosen", "rejected"), _from_preference),
    (("instruction", "instances"), _from_instances),
    (("instruction", "output"), _from_instruction),
    (("instruction", "response"), _from_instruction),
    (("instruction", "chosen", "rejected"), _from_instruction),
    (("question", "reasoning", "answer"), _from_reasoning),
    (("user_message", "assistant_response"), _from_tool_use),
    (("question", "answer"), _from_question),
    (("prompt",), _from_prompt),
)
