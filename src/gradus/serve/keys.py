"""Accounts by key: a file that only its owner can read, with the digest of each key and what its account may use.

A key is 256 random bits, so one SHA-256 of it is as hard to turn back as any slower digest: no list of words holds it.
The key itself is shown once, when it is made. Torch-free.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from contextlib import AbstractContextManager
from pathlib import Path

from pydantic import Field

from gradus.core.errors import ConfigError, did_you_mean
from gradus.core.files import write_atomic
from gradus.core.lock import exclusive_lock
from gradus.core.secrets import exposure, read_secret
from gradus.core.settings import Settings, load_settings

KEY_VARIABLE = "GRADUS_API_KEY"
_PREFIX = "sk-gradus-"
_LEAST_CHOSEN = 24  # characters of a key that somebody chose himself: it must not be guessed


class Account(Settings):
    """Who holds a key. requests_per_minute, tokens_per_minute, tokens_per_day, max_concurrent: None for no bound;
    tokens are those of prompts and replies together, days are those of UTC. sees_all: /metrics tells it the tokens of
    every account, not of its own alone."""

    name: str = Field(pattern=r"^[\w.@-]{1,64}$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    requests_per_minute: float | None = Field(default=None, gt=0)
    tokens_per_minute: float | None = Field(default=None, gt=0)
    tokens_per_day: int | None = Field(default=None, ge=1)
    max_concurrent: int | None = Field(default=None, ge=1)
    sees_all: bool = False


class _KeyFile(Settings):
    accounts: tuple[Account, ...] = ()


def key_digest(key: str) -> str:
    """What is kept of a key."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def read_accounts(path: Path) -> tuple[Account, ...]:
    """The accounts of a file; none where there is no file. Errors: ConfigError, also where others can read it."""
    if fault := exposure(path):
        raise ConfigError(fault)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: the accounts cannot be read ({error})") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: expected a JSON object with accounts")
    accounts = load_settings(_KeyFile, found, str(path)).accounts
    names = [account.name for account in accounts]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f'{path}: two accounts are called "{twice}"')
    return accounts


def add_account(path: Path, name: str, **settings: float | None) -> str:
    """Make an account with these settings, and its key, which is returned and kept nowhere. Errors: ConfigError."""
    key = _PREFIX + secrets.token_urlsafe(32)
    account = load_settings(Account, {"name": name, "sha256": key_digest(key), **settings}, "account")
    with _changing(path):
        accounts = read_accounts(path)
        if any(other.name == name for other in accounts):
            raise ConfigError(f'{path}: there is an account "{name}" already; remove it first, or choose another name')
        _write(path, (*accounts, account))
    return key


def remove_account(path: Path, name: str) -> None:
    """Take an account away; a running server refuses its key from then on. Errors: ConfigError."""
    with _changing(path):
        accounts = read_accounts(path)
        names = [account.name for account in accounts]
        if name not in names:
            hint = did_you_mean(name, names) or f"; there are {', '.join(names) or 'none'}"
            raise ConfigError(f'{path}: no account "{name}"{hint}')
        _write(path, tuple(account for account in accounts if account.name != name))


def _changing(path: Path) -> AbstractContextManager[None]:
    return exclusive_lock(path.with_name(f".{path.name}.lock"), "process {pid} changes the accounts", lambda _: None)


def _write(path: Path, accounts: tuple[Account, ...]) -> None:
    rows = [account.model_dump(mode="json", exclude_defaults=True) for account in accounts]
    before = os.umask(0o077)  # nobody else may read it for even a moment
    try:
        write_atomic(path, json.dumps({"accounts": rows}, indent=1) + "\n")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror}); the accounts are as they were") from None
    finally:
        os.umask(before)


class Accounts:
    """Finds the account of a key; a file that changes is read again, so that new and removed keys count at once."""

    def __init__(self, path: Path | None) -> None:
        """path: of the file. The key in the environment, where there is one, has an account without bounds.

        Errors: ConfigError where either cannot be used.
        """
        self._path = path
        self._own: tuple[Account, ...] = ()
        if os.environ.get(KEY_VARIABLE, "").strip():
            key = read_secret(KEY_VARIABLE, None) or ""
            if len(key) < _LEAST_CHOSEN:
                raise ConfigError(
                    f"the environment variable {KEY_VARIABLE} holds {len(key)} characters; at least {_LEAST_CHOSEN} "
                    "are needed: gradus serve keys add NAME makes a key"
                )
            self._own = (Account(name="environment", sha256=key_digest(key), sees_all=True),)
        self._stamp = self._file_stamp()
        self._kept = read_accounts(path) if path else ()
        self._were_needed = False

    @property
    def are_needed(self) -> bool:
        """Whether a request without a key is refused; from the first key on, also when the last is gone.

        Errors: ConfigError for a spoilt file.
        """
        self._read_again()
        self._were_needed = self._were_needed or bool(self._own or self._kept)
        return self._were_needed

    def find(self, key: str) -> Account | None:
        """The account of a key, in a time that does not depend on the key. Errors: ConfigError for a spoilt file."""
        self._read_again()
        digest = key_digest(key)
        found = None
        for account in (*self._own, *self._kept):
            if hmac.compare_digest(account.sha256, digest):
                found = account
        return found

    def _read_again(self) -> None:
        stamp = self._file_stamp()
        if stamp != self._stamp and self._path is not None:
            self._kept = read_accounts(self._path)
            self._stamp = stamp

    def _file_stamp(self) -> tuple[int, int, int] | None:
        try:
            facts = self._path.stat() if self._path else None
        except OSError:
            return None
        return (facts.st_mtime_ns, facts.st_size, facts.st_ino) if facts else None
