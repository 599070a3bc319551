"""What a chat template makes of a conversation: text, ids and mask, by the route that outside readers take.

The template is rendered by Jinja, and the whole text is encoded by HF tokenizers with control tokens enabled,
as transformers' apply_chat_template does. Lint holds the format's own renderer against it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from gradus.conversation.formats.wire import Format, Rendered
from gradus.conversation.messages import Conversation

if TYPE_CHECKING:
    import jinja2

# Noncharacters around what {% generation %} encloses; they are taken out before encoding.
_OPEN, _CLOSE = "\ufdd0", "\ufdd1"


class TemplateRenderer:
    """Renders conversations through a format's chat template."""

    def __init__(self, format: Format) -> None:
        from tokenizers import Tokenizer as Backend

        self._template = _environment().from_string(format.chat_template)
        self._backend = Backend.from_str(format.tokenizer.to_json())

    def text(self, conversation: Conversation, add_generation_prompt: bool = False) -> str:
        """The template's text."""
        return self._marked(conversation, add_generation_prompt).replace(_OPEN, "").replace(_CLOSE, "")

    def render(self, conversation: Conversation) -> Rendered:
        """Ids and mask, as transformers gives them: control tokens spelled out in content are control ids."""
        marked = self._marked(conversation, False)
        spans, pieces, length = [], [], 0
        for index, piece in enumerate(marked.replace(_CLOSE, _OPEN).split(_OPEN)):
            if index % 2:
                spans.append((length, length + len(piece)))
            pieces.append(piece)
            length += len(piece)
        encoding = self._backend.encode("".join(pieces), add_special_tokens=False)
        mask = np.zeros(len(encoding.ids), dtype=np.bool_)
        for start, end in spans:
            first, last = encoding.char_to_token(start), encoding.char_to_token(end - 1)
            if first is not None and last is not None:
                mask[first : last + 1] = True
        return Rendered(np.array(encoding.ids, dtype=np.int32), mask)

    def _marked(self, conversation: Conversation, add_generation_prompt: bool) -> str:
        switches = {} if conversation.think is None else {"enable_thinking": conversation.think}
        return self._template.render(
            messages=[message.to_json() for message in conversation.messages],
            tools=[tool.to_json() for tool in conversation.tools] or None,
            add_generation_prompt=add_generation_prompt,
            **switches,
        )


def _environment() -> jinja2.Environment:
    """Jinja as transformers sets it up: sandboxed, blocks trimmed, plain JSON, {% generation %}."""
    from jinja2 import nodes
    from jinja2.ext import Extension
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        tags = {"generation"}  # noqa: RUF012  (jinja2 reads it from the class)

        def parse(self, parser: Parser) -> nodes.Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.CallBlock(self.call_method("_enclose"), [], [], body).set_lineno(line)

        def _enclose(self, caller: Callable[[], str]) -> str:
            return f"{_OPEN}{caller()}{_CLOSE}"

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation], autoescape=False
    )
    environment.filters["tojson"] = _to_json
    return environment


def _to_json(value: Any, separators: tuple[str, str] | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, separators=separators)
