"""OpenAI's own client against the server: every call that it has for what is served, parsed by its own types.

Needs the package openai: `make test-peers`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

import pydantic
import pytest
from small_server import Running, serving

from gradus.serve.keys import add_account

openai = pytest.importorskip("openai", reason="needs the package openai (make test-peers)")
pytestmark = pytest.mark.usefixtures("one_thread")

QUESTION = [{"role": "user", "content": "what is 12 * 3?"}]
THINKING = {"gradus": {"think": True}}


@pytest.fixture(scope="module")
def client(running: Running) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0) as found:
        yield found


def declared(memorised: Any) -> dict[str, Any]:
    (tool,) = memorised[0].toolbox.schemas(["calculator"])
    return tool.to_json()


def test_chat_completions_whole_and_accumulated_with_a_tool_call_and_its_result(client: Any, memorised: Any) -> None:
    tools = [{"type": "function", "function": declared(memorised)}]
    asked = {"model": "small", "temperature": 0, "tools": tools, "extra_body": THINKING}
    whole = client.chat.completions.create(messages=QUESTION, **asked).choices[0]
    with client.chat.completions.stream(messages=QUESTION, **asked) as stream:
        kinds = [event.type for event in stream]
        streamed = stream.get_final_completion().choices[0]
    assert "tool_calls.function.arguments.done" in kinds
    for choice in (whole, streamed):
        assert choice.finish_reason == "tool_calls"
        (call,) = choice.message.tool_calls
        assert (call.function.name, call.function.arguments) == ("calculator", '{"expression": "12 * 3"}')
        assert choice.message.reasoning_content == "The calculator knows 12 * 3."
    answer = {"role": "tool", "tool_call_id": call.id, "content": "36"}
    again = client.chat.completions.create(messages=[*QUESTION, whole.message, answer], **asked)
    assert again.choices[0].message.content == "12 * 3 = 36."
    parts = client.chat.completions.create(
        model="small", messages=QUESTION, temperature=0, stream=True, stream_options={"include_usage": True},
        extra_body={"gradus": {"think": True, "tools": ["calculator"]}},
    )  # fmt: skip
    chunks = list(parts)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "12 * 3 = 36."
    assert chunks[-1].usage.completion_tokens_details.reasoning_tokens > 5


def test_responses_whole_and_accumulated_and_sent_back(client: Any, memorised: Any) -> None:
    asked = {"model": "small", "temperature": 0, "tools": [{"type": "function", **declared(memorised)}]}
    asked |= {"extra_body": THINKING}
    whole = client.responses.create(input=QUESTION, **asked)
    with client.responses.stream(input=QUESTION, **asked) as stream:
        for _ in stream:
            pass
        streamed = stream.get_final_response()
    assert (
        [item.type for item in whole.output]
        == [item.type for item in streamed.output]
        == ["reasoning", "function_call"]
    )
    call = streamed.output[1]
    assert (call.name, call.arguments) == ("calculator", '{"expression": "12 * 3"}')
    items = [*QUESTION, *whole.output]
    items.append({"type": "function_call_output", "call_id": whole.output[1].call_id, "output": "36"})
    again = client.responses.create(input=items, **asked)
    assert (again.output_text, again.status) == ("12 * 3 = 36.", "completed")
    cut = client.responses.create(model="small", input="hello", temperature=0, max_output_tokens=2)
    assert (cut.status, cut.incomplete_details.reason) == ("incomplete", "max_output_tokens")


class Pet(pydantic.BaseModel):
    kind: Literal["cat", "dog"]


class Person(pydantic.BaseModel):
    name: str = pydantic.Field(max_length=5)
    age: int | None
    pets: list[Pet] = pydantic.Field(max_length=2)


def test_replies_are_parsed_by_pydantic_whole_and_streamed(client: Any) -> None:
    asked = {"model": "small", "temperature": 1, "extra_body": {"gradus": {"think": True, "think_budget": 5}}}
    for seed in range(3):
        chat = asked | {"messages": QUESTION, "seed": seed, "response_format": Person}
        whole = client.chat.completions.parse(**chat).choices[0].message
        assert isinstance(whole.parsed, Person)
        with client.chat.completions.stream(**chat) as stream:
            kinds = [event.type for event in stream]
            streamed = stream.get_final_completion().choices[0].message
        assert "content.done" in kinds
        assert streamed.parsed == whole.parsed
        assert whole.reasoning_content
    response = client.responses.parse(input=QUESTION, text_format=Person, **asked)
    assert isinstance(response.output_parsed, Person)
    with client.responses.stream(input=QUESTION, text_format=Person, **asked) as stream:
        for _ in stream:
            pass
        assert isinstance(stream.get_final_response().output_parsed, Person)
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(messages=QUESTION, response_format=Person, max_tokens=3, **asked)
    free = client.chat.completions.create(
        messages=QUESTION, response_format={"type": "json_object"}, max_tokens=400, **asked | {"seed": 5}
    )
    assert isinstance(json.loads(free.choices[0].message.content), dict)


def test_calls_are_forced_and_their_arguments_parsed(client: Any) -> None:
    tool = openai.pydantic_function_tool(Pet, name="tell")
    asked = {"model": "small", "temperature": 1, "messages": QUESTION, "tools": [tool], "reasoning_effort": "none"}
    for choice in ("required", {"type": "function", "function": {"name": "tell"}}):
        made = client.chat.completions.parse(tool_choice=choice, parallel_tool_calls=False, **asked).choices[0]
        (call,) = made.message.tool_calls
        assert isinstance(call.function.parsed_arguments, Pet)
        assert made.finish_reason == "tool_calls"


def test_completions_models_and_the_exceptions_of_refusals(client: Any, load: Any, tmp_path: Any) -> None:
    made = client.completions.create(model="small", prompt=["Hello", "They"], max_tokens=4, temperature=0, logprobs=1)
    assert [len(choice.logprobs.tokens) for choice in made.choices] == [4, 4]
    assert [model.id for model in client.models.list()] == [client.models.retrieve("small").id]
    with pytest.raises(openai.NotFoundError, match="no model"):
        client.chat.completions.create(model="large", messages=QUESTION)
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="small", messages=QUESTION, presence_penalty=1)
    assert (refused.value.code, refused.value.param) == ("unsupported_parameter", "presence_penalty")
    key = add_account(tmp_path / "keys.json", "ada", requests_per_minute=1)
    with serving(load, keys=tmp_path / "keys.json") as found:
        base = {"base_url": f"{found.url}/v1", "max_retries": 0}
        with pytest.raises(openai.AuthenticationError):
            openai.OpenAI(api_key="wrong", **base).models.list()
        held = openai.OpenAI(api_key=key, **base)
        held.chat.completions.create(model="small", messages=QUESTION, max_tokens=2)
        with pytest.raises(openai.RateLimitError) as limited:
            held.chat.completions.create(model="small", messages=QUESTION, max_tokens=2)
        assert 50 < int(limited.value.response.headers["Retry-After"]) <= 60
