"""Keys and tokens: taken from the environment or a file that only its owner can read, and never shown."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

# Variables whose values are secrets wherever they turn up.
VARIABLES = (
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
)
HIDDEN = "[hidden]"
_LEAST_CHARACTERS = 6  # a shorter value would hide half the words of a message
# Forms that services give out, and what follows such names in addresses and headers.
_FORMS = re.compile(
    r"\bhf_[A-Za-z0-9]{8,}|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"
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
    return _FORMS.sub(HIDDEN, text)


def exposure(path: Path) -> str:
    """What is wrong with a file of secrets: that others can read it; '' where they cannot, or there is none."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return ""
    if os.name == "posix" and stat.S_IMODE(mode) & 0o077:
        return f"{path}: other users of this machine can read this secret; run: chmod 600 {path}"
    return ""
