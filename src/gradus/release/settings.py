"""Where a home is pushed to, as a roadmap says it: the `[push]` table, and the form of a place's address."""

from __future__ import annotations

import re

from pydantic import Field, field_validator

from gradus.core.errors import ConfigError
from gradus.core.quantity import Quantity
from gradus.core.settings import Settings

_HUB = re.compile(r"hub:[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_ADDRESS = re.compile(r"(?P<protocol>[a-z][a-z0-9+.-]*)://(?P<rest>[^\s?#]+)")
FORMS = '"hub:owner/name", "file:///folder", "s3://bucket/folder" or another address that fsspec knows'


class PushSettings(Settings):
    """The `[push]` table: where checkpoints, artifacts and records are sent while a roadmap is walked.

    to: "hub:owner/name", "file:///folder", "s3://bucket/folder" or another address that fsspec knows; keys come from
    the environment or a file of their owner alone, never from here. every: how far apart checkpoints are that are
    sent; the last one of a stage always is. wait_seconds: how long a walk that has ended waits for what is still
    being sent, before it says what is missing and leaves the rest to the process that sends.
    """

    to: str
    every: Quantity = Quantity(100.0, "steps")
    wait_seconds: float = Field(default=60.0, ge=0)

    @field_validator("to")
    @classmethod
    def _to_is_a_place(cls, to: str) -> str:
        try:
            return checked_address(to)
        except ConfigError as error:
            raise ValueError(str(error)) from None

    @field_validator("every")
    @classmethod
    def _every_counts_steps(cls, every: Quantity) -> Quantity:
        if every.unit != "steps" or not every.value.is_integer():
            raise ValueError(f'expected a whole number of steps, such as "100 steps", found "{every}"')
        return every


def checked_address(text: str) -> str:
    """The address of a place, without a slash at its end. Errors: ConfigError, which never repeats a password."""
    if _HUB.fullmatch(text):
        return text
    found = _ADDRESS.fullmatch(text)
    if found is None:
        hint = f'; a folder is written "file://{text}"' if text.startswith("/") else ""
        shown = text if "@" not in text and "?" not in text else "another form"
        raise ConfigError(f'expected a place, {FORMS}, found "{shown}"{hint}')
    if "@" in found["rest"].split("/")[0]:
        raise ConfigError(
            "an address must hold no name or password: give them in the environment (AWS_ACCESS_KEY_ID, "
            "AWS_SECRET_ACCESS_KEY) or in a file that only you can read"
        )
    if found["protocol"] == "file" and not found["rest"].startswith("/"):
        raise ConfigError(f'"{text}" needs three slashes and a whole path, such as file:///backup/runs')
    return text.rstrip("/")
