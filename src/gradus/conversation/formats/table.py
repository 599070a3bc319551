"""The formats by name."""

from __future__ import annotations

from collections.abc import Callable

from gradus.conversation.formats.hermes import HermesFormat
from gradus.conversation.formats.wire import Format
from gradus.core.errors import ConfigError, did_you_mean
from gradus.tokenizer.tokenizer import Tokenizer

FORMATS: dict[str, Callable[[Tokenizer], Format]] = {"hermes": HermesFormat}


def conversation_format(name: str, tokenizer: Tokenizer) -> Format:
    """The format of that name; ConfigError with the nearest name, DataError where control tokens lack."""
    if name not in FORMATS:
        raise ConfigError(
            f'unknown conversation format "{name}"; known are {", ".join(FORMATS)}{did_you_mean(name, FORMATS)}'
        )
    return FORMATS[name](tokenizer)
