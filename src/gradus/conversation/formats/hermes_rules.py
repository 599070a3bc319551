"""What the assistant may write next in the hermes format, kept up to date one id at a time.

Two strictnesses. "calls": nothing but tool calls is touched; a call is opened only where tools are declared, holds
nothing but what a grammar of calls allows (the engine's), and is closed before anything else happens. "turn": besides,
the invariants of thinking with tools (validate.py): thinking at most once, first, closed, and there where it is asked
for; calls only behind it; behind a call only further calls; no control token spelled out as text; the turn ends with
the stop token, and not before there is text or a call.

Under either, what is written behind thinking may be bound: to calls, or to what a grammar of answers allows. Then
thinking is closed before anything else comes, nothing stands before a call or an answer but the blank line that parts
it from thinking, and nothing behind it but further calls or the stop token.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Literal

from gradus.conversation.constraint import Constraint
from gradus.conversation.formats.wire import Allowed, Held
from gradus.tokenizer import specials
from gradus.tokenizer.specials import SPECIAL_TOKENS
from gradus.tokenizer.streaming import StreamDecoder
from gradus.tokenizer.tokenizer import Tokenizer

_State = Literal["text", "think", "call", "called"]


class HermesRules:
    """The state of one assistant segment: what is written from the end of a prompt to a stop token."""

    def __init__(
        self, words: Words, stop_id: int, constraint: Constraint, held: Held, blank_line: Sequence[int]
    ) -> None:
        """blank_line: what stands between thinking and what follows it."""
        tokenizer = words.tokenizer
        ids = tokenizer.special_tokens
        self._call, self._call_end = ids[specials.TOOL_CALL], ids[specials.TOOL_CALL_END]
        self._think, self._think_end = ids[specials.THINK], ids[specials.THINK_END]
        self._stop = stop_id
        self._newline = tokenizer.encode("\n")[0]
        self._held = held
        self._state: _State = "think" if held.think and held.opens else "text"
        self._may_think = held.opens and held.think is None
        self._is_blank = True  # what is open holds no text yet
        self._has_newline = False  # behind the last call
        self._blank_line = tuple(blank_line)
        self._gap: tuple[int, ...] = ()  # of the blank line behind thinking, what may still come
        closed = {self._call_end} if held.tools else {self._call, self._call_end}
        self._outside_calls = Allowed(True, tuple(token for token in ids.values() if token not in closed))
        self._decoder = StreamDecoder(tokenizer)
        self._markers = SpelledMarkers(words) if constraint == "turn" else None

    def push(self, token: int) -> None:
        """Take the next id."""
        self._gap = self._gap[1:] if self._gap[:1] == (token,) else ()
        if token == self._call:
            self._state = "call"
        elif token == self._call_end:
            self._state, self._has_newline = "called", False
        elif token == self._think:
            self._state, self._may_think, self._is_blank = "think", False, True
        elif token == self._think_end:
            self._state, self._is_blank, self._gap = "text", True, self._blank_line
        elif self._state == "called":
            self._has_newline = True
        elif self._state != "call":
            self._read(token)
            return
        self._decoder.finish()
        if self._markers is not None:
            self._markers.reset()

    def _read(self, token: int) -> None:
        """A token of thinking or text."""
        self._may_think = False
        text = self._decoder.push(token)
        if text and not text.isspace():
            self._is_blank = False
        if self._markers is not None:
            self._markers.push(token)

    def allowed(self) -> Allowed:
        """What may come next."""
        if self._state == "call":
            return Allowed(False, (), grammar="call", ends=(self._call_end,))
        if self._markers is None and not self._held.is_bound:
            return self._outside_calls
        calls = (self._call,) if self._held.tools else ()
        if self._state == "called":
            return Allowed(False, (self._stop, *calls) if self._has_newline else (self._stop, self._newline, *calls))
        if self._state == "text" and self._held.is_bound:
            return self._bound(calls)
        spelled = self._markers.completing() if self._markers is not None else ()
        if self._state == "think":
            may_close = self._held.think is None or not self._is_blank
            return Allowed(True, (self._think_end,) if may_close else (), spelled)
        if self._is_blank:
            return Allowed(True, (*calls, self._think) if self._may_think else calls, spelled)
        return Allowed(True, (*calls, self._stop), spelled)

    def _bound(self, calls: tuple[int, ...]) -> Allowed:
        """What may come where not every text may."""
        is_formatted = self._held.formatted and not self._held.must_call
        if not self._is_blank:
            return Allowed(False, (), grammar="answer", ends=(self._stop,))
        besides = (*calls, *((self._think,) if self._may_think else ()), *self._gap[:1])
        return Allowed(False, besides, grammar="answer" if is_formatted else None)


class SpelledMarkers:
    """The name of a control token in the making, as text, and the ids that would complete one."""

    def __init__(self, words: Words) -> None:
        self._words = words
        self._begun = b""

    def reset(self) -> None:
        """A control token stands between what was and what comes."""
        self._begun = b""

    def push(self, token: int) -> None:
        """Take an id of text."""
        read = self._begun + self._words.tokenizer.decode_bytes([token])
        last = read[read.rfind(b"<") :] if b"<" in read else b""
        self._begun = last if any(marker.startswith(last) for marker in _MARKERS) else b""

    def completing(self) -> tuple[int, ...]:
        """The ids of text behind which a marker would stand."""
        found = self._words.whole
        if self._begun:
            for marker in _MARKERS:
                if marker.startswith(self._begun):
                    found += self._words.starting(marker[len(self._begun) :])
        return found


_MARKERS = tuple(marker.encode() for marker in SPECIAL_TOKENS)


class Words:
    """A tokenizer's ids of text in the order of their bytes. whole: those that hold a marker by themselves."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        controls = set(tokenizer.special_tokens.values())
        words = ((tokenizer.decode_bytes([i]), i) for i in range(tokenizer.vocab_size) if i not in controls)
        self._ordered = sorted(words)
        self.whole = tuple(i for word, i in self._ordered if any(marker in word for marker in _MARKERS))

    def starting(self, beginning: bytes) -> tuple[int, ...]:
        """Ids whose bytes begin so."""
        place = bisect_left(self._ordered, (beginning, -1))
        found: list[int] = []
        while place < len(self._ordered) and self._ordered[place][0].startswith(beginning):
            found.append(self._ordered[place][1])
            place += 1
        return tuple(found)
