"""What a server allows: sizes, waiting, time, and what stands in for what a request leaves out."""

from __future__ import annotations

from pydantic import Field

from gradus.core.settings import Settings
from gradus.core.temperature import Temperature


class ServeSettings(Settings):
    """title: shown by the chat page. hosts: names by which clients may call a server without keys, besides the loopback
    ones. origins: web pages of other sites that may call it.

    num_slots: requests decoded at once, for each model; max_waiting: requests that may wait for one of them.
    max_body_bytes, max_messages: of a request. max_tokens: of a reply, thinking included. max_choices: `n`.
    max_calls: tool calls that the server runs in one reply. run_tools: names of tools that it runs for a request that
    knows nothing of ours: that has neither `gradus` nor tools of its own. temperature: where a request names none.
    keep_alive_seconds: a stream that is silent for so long sends a comment. drain_seconds: how long replies in the
    making are waited for when the server ends or a model is replaced.
    """

    title: str = "gradus"
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    num_slots: int = Field(default=8, ge=1)
    max_waiting: int = Field(default=64, ge=0)
    max_body_bytes: int = Field(default=4 * 2**20, ge=1024)
    max_messages: int = Field(default=1024, ge=1)
    max_tokens: int = Field(default=4096, ge=1)
    max_choices: int = Field(default=8, ge=1)
    max_calls: int = Field(default=8, ge=1)
    run_tools: tuple[str, ...] = ()
    temperature: Temperature = 0.7
    keep_alive_seconds: float = Field(default=15.0, gt=0)
    drain_seconds: float = Field(default=30.0, ge=0)
