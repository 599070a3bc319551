"""A search before the model answers: where the rules say that the last turn needs one, or the user asks for it.

The conversation goes on with the call and its result as if the model had made it, and the client is told of both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from typing import Any, Literal

from gradus.conversation.messages import Conversation, Message, ToolCall
from gradus.engine.turn import Request
from gradus.serve.asked import Asked
from gradus.serve.body import load_body
from gradus.serve.chat_request import ChatBody, ask
from gradus.serve.classifier import classify, search_query
from gradus.serve.errors import bad_request
from gradus.serve.models import ServedModel
from gradus.serve.settings import ServeSettings
from gradus.tools.web_search import WEB_SEARCH

MOST_SEARCHES = 32  # that are waited for at once; more wait for one of them to end


def may_search(body: Mapping[str, Any]) -> bool:
    """Whether `read_chat` may have to wait for a search."""
    extension = body.get("gradus")
    return isinstance(extension, Mapping) and extension.get("search") in ("auto", "force")


def read_chat(body: Mapping[str, Any], model: ServedModel, settings: ServeSettings) -> Asked:
    """The engine requests of a chat completion, with what was searched for first. Errors: ApiError.

    It waits for the search: not for an event loop's own thread.
    """
    given = load_body(ChatBody, body)
    asked = ask(given, model, settings)
    how = given.gradus.search if given.gradus is not None else None
    if how not in ("auto", "force"):
        return asked
    request = asked.requests[0]
    assert isinstance(request, Request)
    conversation = request.conversation
    if WEB_SEARCH.name not in {tool.name for tool in conversation.tools} - asked.client_tools:
        raise bad_request(f'"gradus.search" needs "{WEB_SEARCH.name}" among gradus.tools', "gradus.search")
    if conversation.messages[-1].role != "user" or not (query := _query(conversation, how)):
        return asked
    number = 1 + sum(len(message.tool_calls) for message in conversation.messages)
    call = ToolCall(f"call_{number}", WEB_SEARCH.name, {"query": query})
    (result,) = model.engine.toolbox.start([call], conversation.messages).results()
    told = (Message("assistant", tool_calls=(call,)), result)
    longer = replace(conversation, messages=(*conversation.messages, *told))
    requests = [replace(one, conversation=longer) for one in asked.requests if isinstance(one, Request)]
    return replace(asked, requests=tuple(requests), searched=told)


def _query(conversation: Conversation, how: Literal["auto", "force"]) -> str:
    """What to search for, '' for nothing."""
    today = date.today()
    if how == "force":
        return search_query(conversation.messages, today)
    decision = classify(conversation.messages, today)
    return decision.query if decision.action == "search" else ""
