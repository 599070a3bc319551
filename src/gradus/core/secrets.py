"""Keys and tokens: taken from the environment or a file that only its owner can read, and never shown."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Any

from gradus.core.errors import ConfigError

# Variables whose values are secrets wherever they turn up.
VARIABLES = (
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
)
HIDDEN = "[hidden]"
# Values read by `read_secret` in this process, whatever their variable or file is called.
_READ: set[str] = set()
_KEY = re.compile(r"[!-~]+")  # what a header can carry
_LEAST_CHARACTERS = 6  # a shorter value would hide half the words of a message
# Forms that services give out, and what follows such names in addresses and headers.
_FORMS = re.compile(
    r"\bsk-[A-Za-z0-9_-]{16,}|\bhf_[A-Za-z0-9]{8,}|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"
    r"|(?<=Bearer )[^\s'\"]+"
    r"|(?<=Signature=)[^&\s'\"]+|(?<=Credential=)[^&\s'\"]+|(?<=Security-Token=)[^&\s'\"]+"
    r"|(?<=://)[^/@\s]+:[^/@\s]+(?=@)"
)


def redacted(text: str) -> str:
    """The text without the values of secret variables, and without anything of the form of a key."""
    for name in VARIABLES:
        value = os.environ.get(name, "").strip()
        if len(value) >= _LEAST_CHARACTERS:
            text = text.replace(value, HIDDEN)
    return _FORMS.sub(HIDDEN, without_read_secrets(text))


def without_read_secrets(text: str) -> str:
    """The text without the values that `read_secret` gave out; nothing else in it is touched."""
    # The longest first: one key may begin as another does.
    for value in sorted(_READ, key=len, reverse=True):
        text = text.replace(value, HIDDEN)
    return text


def hidden_in(value: Any) -> Any:
    """Decoded JSON with `without_read_secrets` on every text in it: before decoding, an escape could hide a key."""
    if isinstance(value, str):
        return without_read_secrets(value)
    if isinstance(value, dict):
        return {without_read_secrets(name): hidden_in(entry) for name, entry in value.items()}
    return [hidden_in(entry) for entry in value] if isinstance(value, list) else value


def read_secret(variable: str | None, file: Path | None) -> str | None:
    """A key from an environment variable, or from a file that only its owner can read; None where neither is named.

    From then on `redacted` hides it. Errors: ConfigError where it is not there, can be read by others, or is no key.
    """
    if variable is not None:
        value, place = os.environ.get(variable, ""), f"the environment variable {variable}"
        if not value.strip():
            raise ConfigError(f"{place} is not set; export {variable}=... before you run this again")
    elif file is not None:
        if fault := exposure(file):
            raise ConfigError(fault)
        try:
            value, place = file.read_text(encoding="utf-8"), str(file)
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not text"
            raise ConfigError(f"{file}: the key cannot be read ({reason})") from None
    else:
        return None
    value = value.strip()
    if len(value) < _LEAST_CHARACTERS or not _KEY.fullmatch(value):
        raise ConfigError(f"{place} holds no key: expected one word of at least {_LEAST_CHARACTERS} plain characters")
    _READ.add(value)
    return value


def exposure(path: Path) -> str:
    """What is wrong with a file of secrets: that others can read it; '' where they cannot, or there is none."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return ""
    if os.name == "posix" and stat.S_IMODE(mode) & 0o077:
        return f"{path}: other users of this machine can read this secret; run: chmod 600 {path}"
    return ""
