"""The control tokens of the hermes conversation format, in their fixed order.

They stand at the END of every vocabulary that we train: bytes and merges first, so that a merge's id is its
rank (what tiktoken and llama.cpp expect), then these. Only the renderer of a format ever emits them.
"""

from __future__ import annotations

END_OF_TEXT = "<|endoftext|>"
IM_START = "<|im_start|>"
IM_END = "<|im_end|>"
THINK, THINK_END = "<think>", "</think>"
TOOL_CALL, TOOL_CALL_END = "<tool_call>", "</tool_call>"
TOOL_RESPONSE, TOOL_RESPONSE_END = "<tool_response>", "</tool_response>"
TOOLS, TOOLS_END = "<tools>", "</tools>"

SPECIAL_TOKENS: tuple[str, ...] = (
    END_OF_TEXT,
    IM_START,
    IM_END,
    THINK,
    THINK_END,
    TOOL_CALL,
    TOOL_CALL_END,
    TOOL_RESPONSE,
    TOOL_RESPONSE_END,
    TOOLS,
    TOOLS_END,
)

# Left out by readers that skip special tokens. The others must stay visible to them: the reasoning and tool
# parsers of vLLM and llama.cpp look for their text, as in the Qwen3 tokenizers.
HIDDEN_TOKENS: frozenset[str] = frozenset({END_OF_TEXT, IM_START, IM_END})
