"""Which tokens a request may sample next: the wire format's rules, and grammars of its tools and answer, as one mask.

Masks depend on what was sampled before and not on the model's next logits, so on a GPU they are made while it works.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gradus.conversation.constraint import Constraint
from gradus.conversation.formats.wire import Allowed, Format, Held, Rules
from gradus.conversation.messages import JsonObject, ToolSchema
from gradus.core.errors import ConfigError, did_you_mean
from gradus.engine.grammar import Grammars, GrammarText
from gradus.engine.schema import UnenforceableError

_MAX_MASKS = 256

Mask = NDArray[np.bool_]


def tools_to_call(
    tools: Sequence[ToolSchema], names: Sequence[str] | None, *, must_call: bool
) -> tuple[ToolSchema, ...]:
    """The tools of these names, all where there are none. ConfigError where that leaves none to call."""
    declared = [tool.name for tool in tools]
    for name in names or ():
        if name not in declared:
            raise ConfigError(f'callable_tools: "{name}" is not declared{did_you_mean(name, declared)}')
    found = tuple(tool for tool in tools if names is None or tool.name in names)
    if must_call and not found:
        raise ConfigError("must_call: there is no tool that may be called; declare one")
    return found


class Constraints:
    """What constrained requests of one engine share: compiled grammars and masks."""

    def __init__(self, form: Format) -> None:
        """MissingPackageError without llguidance."""
        self._form = form
        self._grammars = Grammars(form)
        tokenizer = form.tokenizer
        self._text = np.ones(tokenizer.vocab_size, dtype=np.bool_)
        self._text[list(tokenizer.special_tokens.values())] = False
        self._masks: dict[Allowed, Mask] = {}

    def check(self, tools: Sequence[ToolSchema], answer: JsonObject | None = None) -> None:
        """ConfigError where calls of these tools, or answers of this schema, cannot be constrained."""
        if tools:
            self._grammars.call(tools)
        if answer is not None:
            try:
                self._grammars.answer(answer)
            except UnenforceableError as error:
                raise ConfigError(f"the schema of the answer cannot be enforced: {error}") from None

    def segment(
        self,
        constraint: Constraint,
        tools: Sequence[ToolSchema],
        *,
        think: bool | None,
        opens: bool,
        must_call: bool = False,
        answer: JsonObject | None = None,
    ) -> ConstrainedSegment:
        """The constraint of what is sampled from the end of a prompt, or of tool results, to a stop token."""
        held = Held(think, bool(tools), opens, must_call, answer is not None)
        return ConstrainedSegment(self, self._form.rules(constraint, held), tools, answer)

    def begun(self, kind: Literal["call", "answer"], tools: Sequence[ToolSchema], answer: JsonObject) -> GrammarText:
        """A call of one of these tools, or an answer of this schema, at its beginning."""
        return self._grammars.call(tools) if kind == "call" else self._grammars.answer(answer)

    def mask(self, allowed: Allowed) -> Mask:
        """(V,), shared: not to be written to."""
        mask = self._masks.get(allowed)
        if mask is None:
            mask = self._text.copy() if allowed.text else np.zeros_like(self._text)
            mask[list(allowed.but)] = False
            mask[list(allowed.besides)] = True
            if len(self._masks) >= _MAX_MASKS:
                self._masks.clear()
            self._masks[allowed] = mask
        return mask


class ConstrainedSegment:
    """One segment of one request."""

    def __init__(
        self, shared: Constraints, rules: Rules, tools: Sequence[ToolSchema], answer: JsonObject | None
    ) -> None:
        self._shared, self._rules, self._tools, self._answer = shared, rules, tools, answer or {}
        self._allowed = rules.allowed()
        self._text = self._begun()

    def push(self, token: int) -> None:
        """Take a sampled token, one that was allowed."""
        before = self._allowed
        self._rules.push(token)
        self._allowed = self._rules.allowed()
        if self._text is None or self._allowed.grammar is None or token in before.besides:
            self._text = self._begun()
        else:
            self._text.push(token)

    def _begun(self) -> GrammarText | None:
        """What a grammar reads from here on."""
        kind = self._allowed.grammar
        return None if kind is None else self._shared.begun(kind, self._tools, self._answer)

    def allowed(self) -> Mask:
        """(V,) bool: the tokens that may be sampled next, at least one."""
        if self._text is None:
            return self._shared.mask(self._allowed)
        mask = self._text.allowed()
        mask[list(self._allowed.besides)] = True
        if self._text.may_end:
            mask[list(self._allowed.ends)] = True
        return mask
