"""The regular expressions that cut text into pieces before any merge; merges never cross a piece.

One expression with a choice of how many digits make a piece. Sources: Qwen2 (single digits, llama.cpp's
`qwen2`), OpenAI cl100k in the spelling of Llama 3 (up to three, `llama-bpe`), nanochat (up to two; unknown
to llama.cpp).
"""

from __future__ import annotations

from gradus.core.errors import ConfigError, did_you_mean

_BEFORE_DIGITS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_AFTER_DIGITS = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

PATTERNS: dict[str, str] = {
    "qwen2": _BEFORE_DIGITS + r"\p{N}" + _AFTER_DIGITS,
    "cl100k": _BEFORE_DIGITS + r"\p{N}{1,3}" + _AFTER_DIGITS,
    "nanochat": _BEFORE_DIGITS + r"\p{N}{1,2}" + _AFTER_DIGITS,
}

# What ByteLevel(use_regex=True) means in a tokenizer.json, as in GPT-2.
GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def split_pattern(name: str) -> str:
    """The expression of that name, or ConfigError with the nearest one."""
    if name not in PATTERNS:
        raise ConfigError(
            f'tokenizer: unknown pattern "{name}"; known are {", ".join(PATTERNS)}{did_you_mean(name, PATTERNS)}'
        )
    return PATTERNS[name]
