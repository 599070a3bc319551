"""What a chat request asks for, read from the parameters of /v1/chat/completions; everything it cannot have is refused.

Extension: "gradus": {"tools": [...], "think": true | false | null, "think_budget": n, "search": "auto" | "force"}
asks for tools that the server runs, and for thinking; "tools" beside it are the client's own, and a call of one of them
ends the reply. A client that knows nothing of all this gets the tools of ServeSettings.run_tools.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from gradus.conversation.messages import (
    Conversation,
    JsonObject,
    Message,
    ToolCall,
    ToolSchema,
    messages_from_json,
    tools_from_json,
)
from gradus.conversation.validate import schema_fault, violations
from gradus.core.errors import ConfigError, DataError
from gradus.core.settings import Settings
from gradus.engine.schema import num_objects
from gradus.engine.turn import Request
from gradus.serve.asked import (
    Asked,
    SamplingBody,
    StreamOptions,
    bounded_tokens,
    check_room,
    drawn_apart,
    sampling_of,
    stops,
)
from gradus.serve.errors import bad_request, unsupported
from gradus.serve.forcing import chat_schema, tool_choice
from gradus.serve.models import ServedModel
from gradus.serve.settings import ServeSettings
from gradus.tools.web_search import WEB_SEARCH

_MESSAGE_KEYS = {"role", "content", "reasoning_content", "reasoning", "tool_calls", "tool_call_id", "name"}
# What clients send back of an answer of ours, or of another server's, where there was nothing of the kind.
_EMPTY_KEYS = {"refusal", "audio", "annotations", "function_call", "gradus"}
# What libraries keep for themselves in messages, and send along: LiteLLM.
_FOREIGN_KEYS = {"provider_specific_fields"}
_MOST_TOOLS = 128  # as at OpenAI
_MOST_TOOL_OBJECTS = 2000  # JSON objects in their parameters; to check that one is a schema takes a millisecond
# Places where the order of messages leaves the format nothing to write; the rest is the client's own business.
_REFUSED_VIOLATIONS = {"result_missing", "result_unknown", "duplicate_call_id"}


class Extension(Settings):
    """tools: names of tools that the server runs. think, think_budget: as the engine's Request has them.

    search: whether rules decide that web_search is called before the model answers, it is called in any case, or that
    tool is left out; None leaves all to the model.
    """

    tools: tuple[str, ...] = ()
    think: bool | None = None
    think_budget: int | None = Field(default=None, ge=0)
    search: Literal["auto", "force", "off"] | None = None


class TemplateOptions(Settings):
    """What Qwen3's chat template takes, and its servers hand on."""

    enable_thinking: bool | None = None


class ChatBody(SamplingBody):
    """The parameters of a chat completion that are honoured."""

    messages: tuple[Any, ...] = Field(min_length=1)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    stop: str | tuple[str, ...] | None = None
    n: int | None = Field(default=None, ge=1)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    tools: tuple[Any, ...] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None
    reasoning_effort: str | None = None
    chat_template_kwargs: TemplateOptions | None = None
    gradus: Extension | None = None


def ask(body: ChatBody, model: ServedModel, settings: ServeSettings) -> Asked:
    """The engine requests of a chat completion. Errors: ApiError."""
    toolbox = model.engine.toolbox
    extension = body.gradus or Extension()
    if body.stream_options is not None and not body.stream:
        raise bad_request('"stream_options" needs "stream": true', "stream_options")
    schema = chat_schema(body.response_format, model)
    client_tools = _client_tools(body, model)
    knows_none = body.gradus is None and not body.tools and body.tool_choice != "none"
    names = settings.run_tools if knows_none else extension.tools
    if len(set(extension.tools)) < len(extension.tools):
        raise bad_request('"gradus.tools" names a tool twice', "gradus.tools")
    try:
        server_tools = toolbox.schemas(name for name in names if extension.search != "off" or name != WEB_SEARCH.name)
    except ConfigError as error:
        raise bad_request(str(error), "gradus.tools") from None
    # Among tools that are run, a client's own would be taken for the server's by its name.
    if server_tools and (both := {tool.name for tool in client_tools} & set(toolbox.names)):
        raise bad_request(f'"{both.pop()}" is the name of a tool of the server; rename yours', "tools")
    # Forced, a client that knows nothing of the server's tools would get a call of one of those.
    own = (*client_tools, *(() if knows_none else server_tools))
    choice = tool_choice(body.tool_choice, [tool.name for tool in own])
    messages = _messages(body.messages, settings)
    check_room(_texts(messages), model)
    conversation = Conversation(messages, (*client_tools, *server_tools))
    request = Request(
        conversation,
        think=_think(body),
        sampling=sampling_of(body, settings),
        max_tokens=_max_tokens(body, settings),
        # Without tools of the server's no call is run, whatever the client's own tools are called.
        max_calls=settings.max_calls if server_tools else 0,
        stop=stops(body.stop),
        think_budget=extension.think_budget,
        logprobs=_logprobs(body),
        constrain=model.constrain or ("calls" if _any_strict(body) else None),
        answer_schema=schema,
        callable_tools=choice.names,
        must_call=choice.must_call,
        single_call=body.parallel_tool_calls is False,
    )
    number = body.n or 1
    return Asked(
        drawn_apart(request, number, settings),
        bool(body.stream),
        number,
        body.stream_options is not None and body.stream_options.include_usage,
        frozenset(tool.name for tool in client_tools),
        bool(server_tools),
    )


def _texts(messages: Sequence[Message]) -> Iterator[str]:
    """What of messages the model reads whatever the format: it writes no less than this."""
    for message in messages:
        yield from (message.content, message.reasoning_content or "", *map(_compact, message.tool_calls))


def _compact(part: ToolCall | ToolSchema) -> str:
    shown = part.arguments if isinstance(part, ToolCall) else part.parameters
    return part.name + json.dumps(shown, ensure_ascii=False, separators=(",", ":"))


def _client_tools(body: ChatBody, model: ServedModel) -> tuple[ToolSchema, ...]:
    if body.tool_choice == "none":
        return ()
    if len(body.tools or ()) > _MOST_TOOLS:
        raise bad_request(f"{len(body.tools or ())} tools, and at most {_MOST_TOOLS} are taken", "tools")
    for index, tool in enumerate(body.tools or ()):
        if not isinstance(tool, Mapping) or tool.get("type") != "function":
            raise bad_request('expected {"type": "function", "function": {...}}', f"tools[{index}]")
    try:
        tools = tools_from_json(body.tools)
    except DataError as error:
        raise bad_request(str(error), "tools") from None
    if (found := sum(num_objects(tool.parameters) for tool in tools)) > _MOST_TOOL_OBJECTS:
        raise bad_request(
            f"{found:,} JSON objects in the parameters of tools, and at most {_MOST_TOOL_OBJECTS:,} are taken", "tools"
        )
    # Before the schemas are looked at, which takes longer and is remembered.
    check_room((text for tool in tools for text in (tool.description, _compact(tool))), model)
    for index, tool in enumerate(tools):
        if fault := schema_fault(tool.parameters):
            raise bad_request(f"tools[{index}] ({tool.name}): its parameters are {fault}", f"tools[{index}]")
    names = [tool.name for tool in tools]
    if len(set(names)) < len(names):
        raise bad_request("two tools have one name", "tools")
    return tools


def _any_strict(body: ChatBody) -> bool:
    """Whether a tool is to be called by its schema and no other way: then all calls are held to theirs."""
    functions = [tool["function"] for tool in body.tools or () if body.tool_choice != "none"]
    return any(function.get("strict") for function in functions)


def _messages(rows: Sequence[Any], settings: ServeSettings) -> tuple[Message, ...]:
    """Messages of OpenAI's shapes as ours, results in the order of their calls. Errors: ApiError."""
    unfolded = [(index, row) for index, given in enumerate(rows) for row in _unfolded(given, index)]
    calls = [row.get("tool_calls") for _, row in unfolded if isinstance(row, Mapping)]
    numbers = {"messages": len(unfolded), "tool calls": sum(len(c) for c in calls if isinstance(c, list))}
    for what, number in numbers.items():
        if number > settings.max_messages:
            raise bad_request(f"{number:,} {what}, and at most {settings.max_messages:,} are taken", "messages")
    places = [index for index, _ in unfolded]
    try:
        messages = messages_from_json([_plain(row, index) for index, row in unfolded], "messages", places)
    except DataError as error:
        raise bad_request(str(error), "messages") from None
    messages = _results_in_order(messages)
    if messages[-1].role not in ("user", "tool"):
        raise bad_request("the last message must be a user's or a tool's", f"messages[{len(rows) - 1}].role")
    for violation in violations(Conversation(messages)):
        if violation.reason in _REFUSED_VIOLATIONS:
            assert violation.message_index is not None
            raise bad_request(f"messages[{places[violation.message_index]}]: {violation.detail}", "messages")
    return messages


def _unfolded(row: Any, index: int) -> list[Any]:
    """A message; one of ours that tells of calls in `gradus` as all that it was: calls, results, and its text behind.

    Errors: ApiError.
    """
    if not isinstance(row, Mapping) or not row.get("gradus"):
        return [row]
    told = row["gradus"].get("events") if isinstance(row["gradus"], Mapping) else None
    events = told if isinstance(told, list) and all(map(_is_tool_event, told)) else None
    if events is None or row.get("role") != "assistant":
        raise bad_request(
            f'messages[{index}].gradus: expected {{"events": [...]}} as a reply had it', f"messages[{index}].gradus"
        )
    answered = {event.get("tool_call_id") for event in events if event.get("type") == "tool_result"}
    messages: list[JsonObject] = []
    for event in events:
        if event.get("type") == "tool_result":
            result = {"tool_call_id": event.get("tool_call_id"), "content": event.get("content")}
            messages.append({"role": "tool"} | result)
        elif event.get("id") in answered:
            if not messages or messages[-1]["role"] == "tool":
                messages.append({"role": "assistant", "tool_calls": []})
            function = {"name": event.get("name"), "arguments": event.get("arguments")}
            messages[-1]["tool_calls"].append({"id": event.get("id"), "function": function})
    last = {key: value for key, value in row.items() if key != "gradus"}
    if messages:
        thinking = {key: last.pop(key) for key in ("reasoning_content", "reasoning") if key in last}
        messages[0] |= thinking  # it came first
    return [*messages, last]


def _is_tool_event(value: Any) -> bool:
    """Whether a value tells of a call or of its result, as a reply does."""
    return isinstance(value, Mapping) and any(
        value.get("type") == kind and isinstance(value.get(key), str)
        for kind, key in (("tool_call", "id"), ("tool_result", "tool_call_id"))
    )


def _plain(row: Any, index: int) -> Any:
    """One message with its text in one piece. Errors: ApiError for what has no place in ours."""
    if not isinstance(row, Mapping):
        return row
    where = f"messages[{index}]"
    kept: JsonObject = {}
    for key, value in row.items():
        if (key in _EMPTY_KEYS and not value) or key in _FOREIGN_KEYS:
            continue
        if key not in _MESSAGE_KEYS:
            raise bad_request(f'{where}: unknown or unsupported key "{key}"', f"{where}.{key}")
        kept[key] = value
    if kept.get("role") == "developer":
        kept["role"] = "system"
    # A tool's result says by its id what it answers; a name that a user gives himself would be lost.
    if kept.pop("name", None) is not None and kept.get("role") != "tool":
        raise unsupported(f"{where}.name", f'{where}: "name" is not supported here; write it into the text')
    if kept.get("role") == "tool" and not kept.get("tool_call_id"):
        raise bad_request(f"{where}: a tool's message needs tool_call_id", f"{where}.tool_call_id")
    if isinstance(kept.get("content"), list):
        kept["content"] = "".join(_text_part(part, f"{where}.content[{i}]") for i, part in enumerate(kept["content"]))
    return kept


def _text_part(part: Any, where: str) -> str:
    if isinstance(part, Mapping) and part.get("type") in ("text", "input_text", "output_text"):
        text = part.get("text")
        if isinstance(text, str):
            return text
    kind = part.get("type") if isinstance(part, Mapping) else None
    raise unsupported(where, f"{where}: only parts of type text are supported, found {kind or 'another shape'}")


def _results_in_order(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Results stand in the order of the calls they answer: the model reads them without ids."""
    ordered: list[Message] = []
    place: dict[str | None, int] = {}
    waiting: list[Message] = []
    for message in messages:
        if message.role == "tool":
            waiting.append(message)
            continue
        ordered += sorted(waiting, key=lambda result: place.get(result.tool_call_id, 0))
        waiting = []
        place = {call.id: number for number, call in enumerate(message.tool_calls)}
        ordered.append(message)
    return (*ordered, *sorted(waiting, key=lambda result: place.get(result.tool_call_id, 0)))


def _think(body: ChatBody) -> bool | None:
    """The one switch behind three spellings. Errors: ApiError where they say different things."""
    said: dict[str, bool] = {}
    if body.gradus is not None and body.gradus.think is not None:
        said["gradus.think"] = body.gradus.think
    if body.chat_template_kwargs is not None and body.chat_template_kwargs.enable_thinking is not None:
        said["chat_template_kwargs.enable_thinking"] = body.chat_template_kwargs.enable_thinking
    if body.reasoning_effort is not None:
        if body.reasoning_effort != "none":
            raise unsupported(
                "reasoning_effort",
                'only "none" is supported; gradus.think asks for thinking, and gradus.think_budget bounds it',
            )
        said["reasoning_effort"] = False
    if len(set(said.values())) > 1:
        raise bad_request(f"{' and '.join(said)} contradict one another", next(iter(said)))
    return next(iter(said.values()), None)


def _max_tokens(body: ChatBody, settings: ServeSettings) -> int:
    if body.max_tokens is not None and body.max_completion_tokens is not None:
        raise bad_request('give "max_completion_tokens" or "max_tokens", not both', "max_tokens")
    name = "max_tokens" if body.max_completion_tokens is None else "max_completion_tokens"
    return bounded_tokens(body.max_completion_tokens or body.max_tokens, name, settings)


def _logprobs(body: ChatBody) -> int | None:
    if body.top_logprobs is not None and not body.logprobs:
        raise bad_request('"top_logprobs" needs "logprobs": true', "top_logprobs")
    return (body.top_logprobs or 0) if body.logprobs else None
