"""Settings of a remote model behind an OpenAI-compatible API, and what its answers would cost.

What decides an answer (address, model, sampling) is part of a stage's identity. How it is asked (key, concurrency,
patience, prices, budget) is not: it may be changed between two walks, and answers that are there stay valid.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from gradus.core.settings import Settings

PER_PRICE = 1_000_000  # tokens
# Set by us; in `extra` they would say something else than the settings do.
_OURS = ("model", "messages", "tools", "stream", "n", "temperature", "max_tokens", "max_completion_tokens")
_KEY = re.compile(r"(?:sk|hf|gsk|xai|nvapi)_(?=.*\d)|(?=.*[a-z])(?=.*\d)[A-Za-z0-9]{24}")
_SECRET_WORDS = ("key", "authorization", "password", "secret", "credential")


class EndpointSettings(Settings):
    """base_url: up to and without /chat/completions, such as "https://api.openai.com/v1". model: its name there.

    served_as: the name that answers carry where it is not the model's. temperature: the service's own where None.
    max_tokens: of one answer, thinking included; limit_key: by which name the service knows that. extra: further
    fields of every request ({ reasoning_effort = "low" }).
    key_variable: the environment variable that holds the key; key_file: a file of mode 0600 that does; neither for a
    service without keys. concurrency: requests in flight, of all processes together. timeout_seconds: of one attempt.
    max_attempts: of one request that fails in other ways than by a rate limit. patience_seconds: without any answer
    before the walk stops.
    input_price, cached_input_price, output_price: for a million tokens. budget: most that may be spent, in the same
    money; the walk stops before it would be passed.
    """

    base_url: str
    model: str = Field(min_length=1)
    served_as: str | None = None
    temperature: float | None = Field(default=None, ge=0.0, le=2.0)
    max_tokens: int = Field(default=4096, ge=1)
    limit_key: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    extra: dict[str, Any] = Field(default_factory=dict)
    key_variable: str | None = Field(default=None, exclude=True)
    key_file: str | None = Field(default=None, exclude=True)
    concurrency: int = Field(default=16, ge=1, le=1024, exclude=True)
    timeout_seconds: float = Field(default=180.0, gt=0.0, exclude=True)
    max_attempts: int = Field(default=6, ge=1, exclude=True)
    patience_seconds: float = Field(default=600.0, gt=0.0, exclude=True)
    input_price: float | None = Field(default=None, ge=0.0, exclude=True)
    cached_input_price: float | None = Field(default=None, ge=0.0, exclude=True)
    output_price: float | None = Field(default=None, ge=0.0, exclude=True)
    budget: float | None = Field(default=None, gt=0.0, exclude=True)

    @field_validator("base_url")
    @classmethod
    def _is_an_address(cls, base_url: str) -> str:
        return checked_address(base_url, "https://api.openai.com/v1").removesuffix("/chat/completions")

    @field_validator("key_variable")
    @classmethod
    def _names_no_key(cls, name: str | None) -> str | None:
        return checked_variable(name)

    @field_validator("extra")
    @classmethod
    def _has_no_secret(cls, extra: dict[str, Any]) -> dict[str, Any]:
        for name in extra:
            if name in _OURS:
                raise ValueError(f'"{name}" is not for extra; it is a setting of its own, or not for you to set')
        for name in [*extra, *_names_of_texts(extra)]:
            if any(word in name.casefold() for word in _SECRET_WORDS):
                raise ValueError(f'"{name}" looks like a secret; keys go into key_variable or key_file')
        return extra

    @model_validator(mode="after")
    def _fits_together(self) -> EndpointSettings:
        if self.key_variable is not None and self.key_file is not None:
            raise ValueError("give either key_variable or key_file")
        has_key = self.key_variable is not None or self.key_file is not None
        if has_key:
            check_key_is_safe(self.base_url)
        if (self.input_price is None) != (self.output_price is None):
            raise ValueError("give both input_price and output_price, for a million tokens each")
        if self.budget is not None and self.input_price is None:
            raise ValueError("a budget needs input_price and output_price, for a million tokens each")
        return self

    def price(self, input_tokens: float, output_tokens: float, cached_tokens: float = 0) -> float | None:
        """Money for so many tokens, cached ones among the input; None where the prices are not known."""
        if self.input_price is None or self.output_price is None:
            return None
        cached_price = self.input_price if self.cached_input_price is None else self.cached_input_price
        plain = (input_tokens - cached_tokens) * self.input_price + cached_tokens * cached_price
        return (plain + output_tokens * self.output_price) / PER_PRICE


def checked_address(base_url: str, example: str) -> str:
    """An http(s) address that requests are sent below, without a slash at its end. Errors: ValueError."""
    try:
        parts = urlsplit(base_url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"not an address ({error})") from None
    if parts.username is not None or parts.query or parts.fragment:
        # Not shown: what stands there may be the key.
        raise ValueError("an address without user name, question mark and #; keys go into key_variable or key_file")
    if parts.scheme not in {"http", "https"} or not host:
        raise ValueError(f'expected an address such as "{example}", found "{base_url}"')
    return base_url.rstrip("/")


def checked_variable(name: str | None) -> str | None:
    """The name of the environment variable that holds a key. Errors: ValueError where it looks like the key itself."""
    # Not shown: what stands there may be the key.
    if name is not None and (not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name) or _KEY.match(name)):
        raise ValueError("no name of a variable; it looks like a key: write the name of the variable that holds it")
    return name


def check_key_is_safe(base_url: str) -> None:
    """Errors: ValueError where a key would go through a public network without encryption."""
    if base_url.startswith("http:") and not _is_private(urlsplit(base_url).hostname or ""):
        raise ValueError("a key would be sent readable by all on the way; use an https:// address")


def _names_of_texts(value: Any) -> Iterator[str]:
    """What texts in a table, and in the tables in it, are called."""
    if isinstance(value, dict):
        yield from (name for name, entry in value.items() if isinstance(entry, str))
    for entry in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _names_of_texts(entry)


def _is_private(host: str) -> bool:
    """Whether an address is of this machine or of a network of one's own."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        # A name of one word; a number is an address written in another way.
        return ("." not in host and not host[:1].isdigit()) or host.endswith((".local", ".internal", ".localhost"))
    return address.is_private or address.is_loopback
