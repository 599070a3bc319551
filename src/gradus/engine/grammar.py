"""What a tool call or a JSON answer may be, token by token: grammars of tools and schemas, by llguidance.

A grammar is compiled once for a set of tools, or a schema, and copied for every call or answer. That of calls allows
the text between the call markers and nothing else, in the wire format's own layout: one name of a declared tool,
arguments in the order of its schema. That of answers allows one JSON value in the same layout.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gradus.conversation.formats.wire import Format
from gradus.conversation.messages import JsonObject, ToolSchema
from gradus.core.errors import ConfigError, GenerationError, MissingPackageError
from gradus.engine.schema import UnenforceableError, narrowed
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
_TRIED_TOKENS = 3


class GrammarText:
    """The text of one call or answer in the making."""

    def __init__(self, matcher: LLMatcher, vocab_size: int, stop_id: int) -> None:
        """stop_id: with which the grammar says that it may end, which is for the format to say."""
        self._matcher = matcher
        self._vocab_size, self._stop_id = vocab_size, stop_id

    def push(self, token: int) -> None:
        """Take a token that `allowed` allowed. GenerationError where the grammar outgrows its limits."""
        self._matcher.consume_token(token)
        self._check()

    def allowed(self) -> NDArray[np.bool_]:
        """(V,), not shared: the tokens that may come next; none where it can only end."""
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
        """Whether it is whole."""
        return bool(self._matcher.is_accepting())

    def _check(self) -> None:
        if self._matcher.is_error():
            reason = _first_line(self._matcher.get_error())
            raise GenerationError(f"the grammar gave up: {reason}")


class Grammars:
    """The grammars of calls and answers over one tokenizer."""

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

    def call(self, tools: Sequence[ToolSchema]) -> GrammarText:
        """A call at its beginning. ConfigError where a tool's schema is none, or cannot be enforced."""
        key = json.dumps([[tool.name, tool.parameters] for tool in tools])
        try:
            return self._begun(key, lambda: self._rules(tools))
        except UnenforceableError as error:
            raise ConfigError(f"the grammar of {len(tools)} tools: {error}") from None

    def answer(self, schema: JsonObject) -> GrammarText:
        """An answer at its beginning. UnenforceableError where the schema is none, or cannot be enforced."""
        return self._begun(json.dumps(schema), lambda: f"start: {_value(schema)}")

    def _begun(self, key: str, lark: Callable[[], str]) -> GrammarText:
        """A copy of the grammar that is known by that key, compiled where it is not."""
        matcher = self._known.get(key)
        if matcher is None:
            matcher = self._compiled(lark())
            if len(self._known) >= _MAX_GRAMMARS:
                self._known.pop(next(iter([*self._known])), None)  # the oldest, unless another thread did
            self._known[key] = matcher
        return GrammarText(matcher.deep_copy(), self._vocab_size, self._stop_id)

    def _compiled(self, lark: str) -> LLMatcher:
        """UnenforceableError where it cannot be."""
        from llguidance import LLMatcher

        matcher = LLMatcher(self._tokenizer, lark, log_level=0)
        if matcher.is_error():
            raise UnenforceableError(_first_line(matcher.get_error()))
        # Much of what is too large shows only when a mask is asked for, or the second.
        text = GrammarText(matcher.deep_copy(), self._vocab_size, self._stop_id)
        try:
            for _ in range(_TRIED_TOKENS):
                if (allowed := text.allowed()).any():
                    text.push(int(allowed.argmax()))
        except GenerationError as error:
            raise UnenforceableError(str(error)) from None
        return matcher

    def _rules(self, tools: Sequence[ToolSchema]) -> str:
        """The grammar of calls of these tools."""
        names = [tool.name for tool in tools]
        problems = [f'tool "{name}": declared twice' for name in sorted({n for n in names if names.count(n) > 1})]
        rules = []
        for number, tool in enumerate(tools):
            before, after = map(json.dumps, self._form.call_frame(tool.name))
            try:
                rule = (f"{before} arguments_{number} {after}", f"arguments_{number}: {_arguments(tool)}")
                self._compiled(_lark([rule]))
            except UnenforceableError as error:
                problems.append(f'tool "{tool.name}": its parameters cannot be enforced: {error}')
                continue
            rules.append(rule)
        if problems:
            raise ConfigError([f"{problem}; change it, or decode without constraint" for problem in problems])
        return _lark(rules)


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


def _arguments(tool: ToolSchema) -> str:
    """The arguments of a tool as a grammar rule. UnenforceableError where they are no objects, too."""
    kind = tool.parameters.get("type", "object")
    if kind != "object":
        raise UnenforceableError(f"arguments are an object, and its type is {kind!r}")
    return _value({**tool.parameters, "type": "object"})


def _value(schema: JsonObject) -> str:
    """A JSON value as a grammar rule. UnenforceableError where the schema is none, or cannot be enforced."""
    return f"%json {json.dumps({**narrowed(schema), 'x-guidance': _LAYOUT})}"


def _lark(rules: Sequence[tuple[str, str]]) -> str:
    """A grammar of alternatives, (how a call is written, what its arguments are) each."""
    return "\n".join(["start: " + " | ".join(call for call, _ in rules), *(arguments for _, arguments in rules)])


def _first_line(text: str) -> str:
    """The reason without the grammar that llguidance quotes behind it."""
    line, *more = text.split("\n")
    reason = line.partition("failed to compile JSON schema: ")[2] or line
    if reason == "regex parse error:":  # the pattern and what is wrong with it stand below
        told = next((one for one in more if one.startswith("error: ")), "error: it cannot be read")
        return f"pattern {more[0].strip()!r}: {told.removeprefix('error: ')}"
    return "oneOf: its choices may go together; use anyOf" if reason.startswith("oneOf") else reason
