"""Rows of tool use: calls by parts, as marked text, in task-oriented dialogues, and as questions with golden calls.

A set that records calls without declarations (SGD, Taskmaster) gets declarations that its calls satisfy. A set that
has calls without results (BFCL, ToolAlpaca, xLAM) gives conversations that end with the calls; several calls one
after another, whose arguments rest on results that are not there, are refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gradus.conversation.calculator_marks import RunTool
from gradus.conversation.messages import (
    Conversation,
    JsonObject,
    Message,
    ToolCall,
    ToolSchema,
    arguments_from_json,
    messages_from_json,
)
from gradus.conversation.record_values import (
    Row,
    RowError,
    declared_tools,
    json_of,
    list_of,
    object_of,
    text_of,
    tools_of_calls,
)
from gradus.core.errors import DataError


def from_tool_use(row: Row, run_tool: RunTool | None) -> Iterator[Conversation]:
    """{user_message, tool_calls, tool_results, assistant_response}."""
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
    tools = declared_tools(row.get("tools"))
    yield Conversation(messages_from_json([*messages, final], "messages"), tools, id=text_of(row.get("id")))


def _result_text(result: object) -> str:
    if isinstance(result, Mapping):
        result = next((result[key] for key in ("content", "result", "output") if key in result), result)
    return result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)


# --- glaive-function-calling-v2: {system, chat}, all of it text

_GLAIVE_TURN = re.compile(r"(?:^|\n)\s*(USER|ASSISTANT|FUNCTION RESPONSE):")
_GLAIVE_CALL = re.compile(r"<functioncall>\s*(.*)", re.DOTALL)
_GLAIVE_ARGUMENTS = re.compile(r"(\"arguments\"\s*:\s*)'(.*)'(\s*\}\s*)$", re.DOTALL)


def from_glaive_text(row: Row, run_tool: RunTool | None) -> Iterator[Conversation]:
    """The system message's text holds the declarations, one JSON object after another; the chat marks its turns."""
    head = text_of(row["system"]).removeprefix("SYSTEM:").strip()
    system, tools = _glaive_declarations(head)
    before, *parts = _GLAIVE_TURN.split(text_of(row["chat"]))
    if before.strip() or not parts:
        raise DataError('chat: expected turns that begin with "USER:" and "ASSISTANT:"')
    messages: list[JsonObject] = [{"role": "system", "content": system}] if system else []
    for speaker, text in zip(parts[::2], parts[1::2], strict=True):
        content = text.replace("<|endoftext|>", "").strip()
        if speaker == "ASSISTANT":
            messages.append(_glaive_answer(content))
        else:
            messages.append({"role": "user" if speaker == "USER" else "tool", "content": content})
    yield Conversation(messages_from_json(messages, "chat"), tools, id=text_of(row.get("id")))


def _glaive_declarations(head: str) -> tuple[str, tuple[ToolSchema, ...]]:
    """(the system message, the declarations); words that only introduce the declarations are none."""
    at = head.find("{")
    if at < 0:
        return head, ()
    found, decoder, rest = [], json.JSONDecoder(), head[at:]
    while rest:
        try:
            value, end = decoder.raw_decode(rest)
        except ValueError as error:
            raise DataError(f"system: a declaration of a tool is no JSON ({error})") from error
        found.append(value)
        rest = rest[end:].strip()
    words = "" if "access to the following functions" in head[:at] else head[:at].strip()
    return words, declared_tools(found)


def _glaive_answer(content: str) -> JsonObject:
    marked = _GLAIVE_CALL.search(content)
    if marked is None:
        return {"role": "assistant", "content": content}
    # Its arguments stand as JSON inside single quotes, with the single quotes of their texts escaped.
    text = _GLAIVE_ARGUMENTS.sub(lambda m: m[1] + m[2].replace("\\'", "'") + m[3], marked[1].strip())
    call = json_of(text, "a call")
    return {"role": "assistant", "content": content[: marked.start()].strip(), "tool_calls": [call]}


# --- task-oriented dialogues


class _Dialogue:
    """Messages of a dialogue in the making; calls are numbered and answered at once."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.calls: list[ToolCall] = []

    def says(self, role: str, text: str) -> None:
        last = self.messages[-1] if self.messages else None
        if last is not None and last.role == role and not last.tool_calls:
            self.messages[-1] = Message(last.role, f"{last.content}\n{text}")
        else:
            self.messages.append(Message("user" if role == "user" else "assistant", text))

    def call(self, name: str, arguments: JsonObject, result: str) -> None:
        call = ToolCall(f"call_{len(self.calls) + 1}", name, arguments)
        self.calls.append(call)
        self.messages += [Message("assistant", tool_calls=(call,)), Message("tool", result, tool_call_id=call.id)]

    def conversation(self, name: str) -> Conversation:
        """What was said up to the last answer."""
        while self.messages and (self.messages[-1].role != "assistant" or self.messages[-1].tool_calls):
            self.messages.pop()
        if not self.messages:
            raise RowError("no_answer", "the dialogue holds no answer")
        kept = [call for message in self.messages for call in message.tool_calls]
        return Conversation(tuple(self.messages), tools_of_calls(kept), id=name)


def from_schema_guided(row: Row, run_tool: RunTool | None) -> Iterator[Conversation]:
    """Schema-Guided Dialogue (Rastogi et al. 2020): a system turn's service call comes before its words."""
    dialogue = _Dialogue()
    for index, turn in enumerate(list_of(row["turns"], "turns")):
        where = f"turns[{index}]"
        if not isinstance(turn, Mapping) or turn.get("speaker") not in ("USER", "SYSTEM"):
            raise DataError(f"{where}: expected an object with speaker USER or SYSTEM, and utterance")
        for frame in list_of(turn.get("frames"), f"{where}.frames", least=0):
            called = object_of(frame, f"{where}.frames").get("service_call")
            if called is not None:
                called = object_of(called, f"{where}.service_call")
                arguments = arguments_from_json(called.get("parameters"), f"{where}.service_call.parameters")
                results = json.dumps(frame.get("service_results", []), ensure_ascii=False)
                dialogue.call(text_of(called.get("method")), arguments, results)
        dialogue.says("user" if turn["speaker"] == "USER" else "assistant", text_of(turn.get("utterance")))
    yield dialogue.conversation(text_of(row["dialogue_id"]))


def from_taskmaster(row: Row, run_tool: RunTool | None) -> Iterator[Conversation]:
    """Taskmaster-4: calls and responses are annotations of the utterance that gave rise to them."""
    dialogue = _Dialogue()
    for index, utterance in enumerate(list_of(row["utterances"], "utterances")):
        if not isinstance(utterance, Mapping) or utterance.get("speaker") not in ("user", "assistant"):
            raise DataError(f"utterances[{index}]: expected an object with speaker user or assistant, and text")
        is_user = utterance["speaker"] == "user"
        if is_user:
            dialogue.says("user", text_of(utterance.get("text")))
        notes = list_of(utterance.get("annotations"), f"utterances[{index}].annotations", least=0)
        _annotated_calls(dialogue, notes, f"utterances[{index}]")
        if not is_user:
            dialogue.says("assistant", text_of(utterance.get("text")))
    yield dialogue.conversation(text_of(row["conversation_id"]))


def _annotated_calls(dialogue: _Dialogue, annotations: Sequence[object], where: str) -> None:
    name = ""
    arguments: JsonObject = {}
    for annotation in annotations:
        note = object_of(annotation, f"{where}.annotations")
        value = text_of(note.get("value"))
        match note.get("name"):
            case "api_call":
                name, arguments = value, {}
            case "request":
                arguments = arguments_from_json(value, f"{where}: request of {name}")
            case "response":
                dialogue.call(name, arguments, value)


# --- questions with golden calls


def from_golden_calls(row: Row, run_tool: RunTool | None) -> Iterator[Conversation]:
    """{query, tools, answers}: calls that answer a question, without results (xLAM)."""
    answers = row["answers"]
    calls = json_of(answers, "answers") if isinstance(answers, str) else answers
    messages = [
        {"role": "user", "content": row["query"]},
        {"role": "assistant", "content": "", "tool_calls": calls},
    ]
    yield Conversation(
        messages_from_json(messages, "answers"), _flat_tools(declared_tools(row["tools"])), id=text_of(row.get("id"))
    )


def _flat_tools(tools: tuple[ToolSchema, ...]) -> tuple[ToolSchema, ...]:
    """Declarations whose parameters are properties alone, {name: {type, ...}}, put into a schema."""
    return tuple(
        tool
        if "type" in tool.parameters or "properties" in tool.parameters
        else ToolSchema(tool.name, tool.description, {"type": "object", "properties": tool.parameters})
        for tool in tools
    )


def from_bfcl(row: Row, run_tool: RunTool | None) -> Iterator[Conversation]:
    """Berkeley Function Calling Leaderboard: a question, functions, and the golden calls of its answer file.

    An argument is the first of its accepted values; one that may be left out is left out.
    """
    turns = list_of(row["question"], "question")
    if len(turns) != 1:
        raise RowError("no_results", f"{len(turns)} turns of calls, and none of their results is recorded")
    if "function" not in row:
        raise RowError("no_results", "its calls are to a simulated interface, and no results are recorded")
    golden = row.get("ground_truth")
    if not golden:
        raise RowError("no_answer", "there is no golden call; the right reply may be to make none")
    calls = [{"name": name, "arguments": _golden_arguments(given)} for call in golden for name, given in call.items()]
    messages = [*turns[0], {"role": "assistant", "content": "", "tool_calls": calls}]
    yield Conversation(
        messages_from_json(messages, "question"), declared_tools(row["function"]), id=text_of(row.get("id"))
    )


def _golden_arguments(given: Mapping[str, Any]) -> JsonObject:
    return {
        name: _golden_value(accepted[0] if isinstance(accepted, list) else accepted)
        for name, accepted in given.items()
        if accepted != [] and not (isinstance(accepted, list) and "" in accepted)
    }


def _golden_value(value: object) -> object:
    """Objects inside an accepted value list accepted values in their turn."""
    if isinstance(value, Mapping):
        return _golden_arguments(value)
    return [_golden_value(part) for part in value] if isinstance(value, list) else value


def from_tool_alpaca(row: Row, run_tool: RunTool | None) -> Iterator[Conversation | RowError]:
    """ToolAlpaca's evaluation sets: an interface described in words, instructions, golden calls of each."""
    tools = _described_tools(row["Function_Description"])
    instructions, golden = (
        list_of(row["Instructions"], "Instructions"),
        list_of(row["Golden_Answers"], "Golden_Answers"),
    )
    if len(instructions) != len(golden):
        raise DataError(f"{len(instructions)} instructions and {len(golden)} golden answers")
    for instruction, steps in zip(instructions, golden, strict=True):
        if not isinstance(steps, list) or len(steps) != 1:
            count = len(steps) if isinstance(steps, list) else "no"
            yield RowError("no_results", f"{count} calls in turn, and none of their results is recorded")
            continue
        try:
            step = object_of(steps[0], "Golden_Answers")
            arguments = arguments_from_json(step.get("Action_Input"), "Action_Input")
            call = ToolCall("call_1", text_of(step.get("Action")), arguments)
        except DataError as error:
            yield RowError("bad_call", str(error))
            continue
        yield Conversation((Message("user", text_of(instruction)), Message("assistant", tool_calls=(call,))), tools)


_PARAMETERS = re.compile(r"(.*?)(?:^|\n)Parameters: (\{.*?\})(?:\nOutput:.*)?", re.DOTALL)
_CHOICES = re.compile(r"One of: \[([^\]]*)\]")


def _described_tools(described: object) -> tuple[ToolSchema, ...]:
    tools = []
    for name, text in object_of(described, "Function_Description").items():
        found = _PARAMETERS.fullmatch(text_of(text))
        if found is None:
            continue  # "components" holds definitions
        given = {key: text_of(words) for key, words in json_of(found[2], f"Function_Description.{name}").items()}
        properties = {key: _described_type(words) for key, words in given.items()}
        required = [key for key, words in given.items() if words.startswith("Required.")]
        schema = {"type": "object", "properties": properties, "required": required}
        tools.append(ToolSchema(name, found[1].strip(), schema))
    return tuple(tools)


def _described_type(words: str) -> JsonObject:
    """ "Required. string. One of: [a, b]. The unit." as a schema."""
    text = words.removeprefix("Required.").strip()
    kind, _, rest = text.partition(".")
    head = re.match(r"[a-z]+", kind.strip().lower())
    schema: JsonObject = {"type": head[0]} if head and head[0] in _DESCRIBED else {}
    choices = _CHOICES.search(rest)
    if choices and schema.get("type") == "string":
        # "" says that a choice is left open.
        schema["enum"] = [*(choice.strip() for choice in choices[1].split(",")), ""]
        rest = rest.replace(choices[0], "", 1)
    return schema | {"description": rest.strip(" .")}


_DESCRIBED = ("string", "integer", "number", "boolean", "array", "object")
