"""Which tokens a request may sample next: the wire format's rules and the grammar of its tools as one mask.

Masks depend on what was sampled before and not on the model's next logits, so on a GPU they are made while it works.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gradus.conversation.constraint import Constraint
from gradus.conversation.formats.wire import Allowed, Format, Rules
from gradus.conversation.messages import ToolSchema
from gradus.engine.call_grammar import CallGrammars, CallText

_MAX_MASKS = 256

Mask = NDArray[np.bool_]


class Constraints:
    """What constrained requests of one engine share: compiled grammars and masks."""

    def __init__(self, form: Format) -> None:
        """MissingPackageError without llguidance."""
        self._form = form
        self._grammars = CallGrammars(form)
        tokenizer = form.tokenizer
        self._text = np.ones(tokenizer.vocab_size, dtype=np.bool_)
        self._text[list(tokenizer.special_tokens.values())] = False
        self._masks: dict[Allowed, Mask] = {}

    def check(self, tools: Sequence[ToolSchema]) -> None:
        """ConfigError where calls of these tools cannot be constrained."""
        if tools:
            self._grammars.call(tools)

    def segment(
        self, constraint: Constraint, tools: Sequence[ToolSchema], *, think: bool | None, opens: bool
    ) -> ConstrainedSegment:
        """The constraint of what is sampled from the end of a prompt, or of tool results, to a stop token."""
        rules = self._form.rules(constraint, think=think, tools=bool(tools), opens=opens)
        return ConstrainedSegment(self, rules, tools)

    def new_call(self, tools: Sequence[ToolSchema]) -> CallText:
        return self._grammars.call(tools)

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

    def __init__(self, shared: Constraints, rules: Rules, tools: Sequence[ToolSchema]) -> None:
        self._shared, self._rules, self._tools = shared, rules, tools
        self._call: CallText | None = None

    def push(self, token: int) -> None:
        """Take a sampled token, one that was allowed."""
        self._rules.push(token)
        if not self._rules.allowed().in_call:
            self._call = None
        elif self._call is None:
            self._call = self._shared.new_call(self._tools)
        else:
            self._call.push(token)

    def allowed(self) -> Mask:
        """(V,) bool: the tokens that may be sampled next, at least one."""
        allowed = self._rules.allowed()
        if self._call is None:
            return self._shared.mask(allowed)
        mask = self._call.allowed()
        if self._call.may_end:
            mask[list(allowed.besides)] = True
        return mask
