"""/tokenize: the tokens of a text, or of the prompt that a conversation becomes, as vLLM tells them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradus.conversation.messages import JsonObject
from gradus.core.settings import Settings
from gradus.engine.turn import Request
from gradus.serve.asked import check_room
from gradus.serve.body import load_body
from gradus.serve.chat_request import ChatBody, ask
from gradus.serve.errors import bad_request
from gradus.serve.models import ServedModel
from gradus.serve.settings import ServeSettings


class TokenizeBody(Settings):
    """The parameters for a text; those for a conversation are the ones of a chat completion."""

    model: str
    prompt: str


def tokenize(body: Mapping[str, Any], model: ServedModel, settings: ServeSettings) -> JsonObject:
    """{"tokens", "count", "max_model_len"}. Errors: ApiError, also for a text of too many bytes for the context.

    A text that only its tokens make too long is counted, so that a client learns by how much.
    """
    if "messages" in body and "prompt" in body:
        raise bad_request('give "prompt" or "messages", not both', "prompt")
    if "messages" in body:
        request = ask(load_body(ChatBody, body), model, settings).requests[0]
        assert isinstance(request, Request)
        tokens = list(model.engine.open_turn(request, listen=False).prompt_ids)
    else:
        prompt = load_body(TokenizeBody, body).prompt
        check_room([prompt], model, "prompt")
        tokens = model.engine.tokenizer.encode(prompt)
    return {"tokens": tokens, "count": len(tokens), "max_model_len": model.engine.context}
