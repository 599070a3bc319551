"""What a tool call may be, token by token: grammars of the declared tools, by llguidance.

A grammar is compiled once for a set of tools and copied for every call. It allows the text between the call markers
and nothing else, in the wire format's own layout: one name of a declared tool, arguments in the order of its schema.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gradus.conversation.formats.wire import Format
from gradus.conversation.messages import ToolSchema
from gradus.conversation.validate import schema_fault
from gradus.core.errors import ConfigError, GenerationError, MissingPackageError
from gradus.engine.call_schema import UnenforceableError, narrowed
from gradus.tokenizer.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLMatcher

# As json.dumps writes, which is what the model was trained on. No \u: it could spell half a character, or a key twice.
_LAYOUT = {
    "key_separator": ": ",
    "item_separator": ", ",
    "whitespace_flexible": False,
    "json_allowed_escapes": '"\\bfnrt',
}
_MAX_GRAMMARS = 64


class CallText:
    """The text of one call in the making."""

    def __init__(self, matcher: LLMatcher, vocab_size: int, stop_id: int) -> None:
        """stop_id: with which the grammar says that it may end, which is for the format to say."""
        self._matcher = matcher
        self._vocab_size, self._stop_id = vocab_size, stop_id

    def push(self, token: int) -> None:
        """Take a token that `allowed` allowed. GenerationError where the grammar outgrows its limits."""
        self._matcher.consume_token(token)
        self._check()

    def allowed(self) -> NDArray[np.bool_]:
        """(V,), not shared: the tokens that may come next; none where the call can only end."""
        if self._matcher.is_stopped():
            self._check()
            return np.zeros(self._vocab_size, dtype=np.bool_)
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        self._check()
        mask = np.unpackbits(bits, count=self._vocab_size, bitorder="little").view(np.bool_)
        mask[self._stop_id] = False
        return mask

    @property
    def may_end(self) -> bool:
        """Whether the call is whole."""
        return bool(self._matcher.is_accepting())

    def _check(self) -> None:
        if self._matcher.is_error():
            raise GenerationError(f"the grammar of a tool call gave up: {_first_line(self._matcher.get_error())}")


class CallGrammars:
    """The grammars of calls over one tokenizer."""

    def __init__(self, form: Format) -> None:
        """MissingPackageError without llguidance."""
        try:
            from llguidance import LLTokenizer, TokenizerWrapper
        except ImportError as error:
            raise MissingPackageError("llguidance", "engine") from error
        self._form = form
        self._vocab_size, self._stop_id = form.tokenizer.vocab_size, form.stop_ids[0]
        self._tokenizer = LLTokenizer(
            TokenizerWrapper(_LlguidanceVocabulary(form.tokenizer, self._stop_id)),
            n_vocab=self._vocab_size,
            slices=LLTokenizer.json_slices(),
        )
        self._known: dict[str, LLMatcher] = {}

    def call(self, tools: Sequence[ToolSchema]) -> CallText:
        """A call at its beginning. ConfigError where a tool's schema is none, or cannot be enforced."""
        key = json.dumps([[tool.name, tool.parameters] for tool in tools])
        matcher = self._known.get(key)
        if matcher is None:
            matcher = self._compiled(tools)
            if len(self._known) >= _MAX_GRAMMARS:
                self._known.clear()
            self._known[key] = matcher
        return CallText(matcher.deep_copy(), self._vocab_size, self._stop_id)

    def _compiled(self, tools: Sequence[ToolSchema]) -> LLMatcher:
        from llguidance import LLMatcher

        names = [tool.name for tool in tools]
        problems = [f'tool "{name}": declared twice' for name in sorted({n for n in names if names.count(n) > 1})]
        rules = []
        for number, tool in enumerate(tools):
            try:
                rule = self._arguments(tool)
            except UnenforceableError as error:
                problems.append(f'tool "{tool.name}": its parameters cannot be enforced: {error}')
                continue
            before, after = map(json.dumps, self._form.call_frame(tool.name))
            rules.append((f"{before} arguments_{number} {after}", f"arguments_{number}: {rule}"))
            if fault := LLMatcher.validate_grammar(_lark(rules[-1:]), self._tokenizer):
                problems.append(f'tool "{tool.name}": its parameters cannot be enforced: {_first_line(fault)}')
        if problems:
            raise ConfigError([f"{problem}; change it, or decode without constraint" for problem in problems])
        matcher = LLMatcher(self._tokenizer, _lark(rules), log_level=0)
        if matcher.is_error():
            raise ConfigError(f"the grammar of {len(tools)} tools: {_first_line(matcher.get_error())}")
        return matcher

    def _arguments(self, tool: ToolSchema) -> str:
        """The arguments of a tool as a grammar rule."""
        if fault := schema_fault(tool):
            raise UnenforceableError(fault)
        return f"%json {json.dumps({**narrowed(tool.parameters), 'x-guidance': _LAYOUT})}"


class _LlguidanceVocabulary:
    """Our tokenizer as llguidance takes one."""

    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, stop_id: int) -> None:
        self._tokenizer = tokenizer
        self.eos_token_id = stop_id
        self.tokens = [tokenizer.decode_bytes([token]) for token in range(tokenizer.vocab_size)]
        self.special_token_ids = list(tokenizer.special_tokens.values())

    def __call__(self, text: str | bytes) -> list[int]:
        return self._tokenizer.encode(text if isinstance(text, str) else text.decode("utf-8", errors="replace"))


def _lark(rules: Sequence[tuple[str, str]]) -> str:
    """A grammar of alternatives, (how a call is written, what its arguments are) each."""
    return "\n".join(["start: " + " | ".join(call for call, _ in rules), *(arguments for _, arguments in rules)])


def _first_line(text: str) -> str:
    """The reason without the grammar that llguidance quotes behind it."""
    return text.split("\n", 1)[0].partition("failed to compile JSON schema: ")[2] or text.split("\n", 1)[0]
