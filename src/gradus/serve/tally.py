"""Tokens and times of the answers to one request."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from gradus.conversation.messages import JsonObject


@dataclass
class Tally:
    """Counts from the arrival of a request. num_each: answers to each prompt, one behind the other."""

    begun: float = field(default_factory=time.monotonic)
    first_at: float | None = None
    num_each: int = 1
    num_tokens: int = 0
    num_reasoning_tokens: int = 0
    _prompts: dict[int, int] = field(default_factory=dict)

    def heard(self) -> None:
        """Something was said: the first of it counts."""
        if self.first_at is None:
            self.first_at = time.monotonic()

    def ended(self, place: int, num_prompt_tokens: int, num_tokens: int) -> None:
        """Answer number `place` is over."""
        self._prompts[place // self.num_each] = num_prompt_tokens
        self.num_tokens += num_tokens

    @property
    def num_prompt_tokens(self) -> int:
        """Of all prompts, each once."""
        return sum(self._prompts.values())

    def usage(self) -> JsonObject:
        """As chat completions tell it."""
        return {
            "prompt_tokens": self.num_prompt_tokens,
            "completion_tokens": self.num_tokens,
            "total_tokens": self.num_prompt_tokens + self.num_tokens,
            "completion_tokens_details": {"reasoning_tokens": self.num_reasoning_tokens},
        }

    def timings(self) -> JsonObject:
        """Seconds until the first words and until now, and tokens a second between them."""
        now = time.monotonic()
        first = now if self.first_at is None else self.first_at
        rate = (self.num_tokens - 1) / (now - first) if self.num_tokens > 1 and now > first else None
        return {
            "first_token_seconds": round(first - self.begun, 4),
            "seconds": round(now - self.begun, 4),
            "tokens_per_second": None if rate is None else round(rate, 2),
        }
