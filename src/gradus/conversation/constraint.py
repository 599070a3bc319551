"""What an answer may be held to while it is decoded."""

from __future__ import annotations

from typing import Literal

Constraint = Literal["calls", "turn"]
"""calls: tool calls cannot be malformed. turn: nor can the turn be against the invariants of thinking with tools."""
