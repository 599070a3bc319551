"""What an account has used, against what it may: requests and tokens a minute, tokens a day, requests at once."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from gradus.core.files import write_atomic
from gradus.serve.errors import busy
from gradus.serve.keys import Account

_MINUTE = 60.0


@dataclass
class _Bucket:
    """A token bucket that holds a minute's worth; it may be overdrawn, and then has to fill first."""

    per_minute: float
    level: float
    at: float

    def fill(self, now: float) -> None:
        self.level = min(self.per_minute, self.level + (now - self.at) * self.per_minute / _MINUTE)
        self.at = now

    def seconds_until(self, level: float) -> float:
        return max(0.0, (level - self.level) * _MINUTE / self.per_minute)


class Meter:
    """What one account uses; all its times are those of the event loop's thread."""

    def __init__(self, account: Account, tokens_today: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.tokens_today = tokens_today
        self.live = 0
        self._clock = clock
        self.bound(account)

    def bound(self, account: Account) -> None:
        """Hold to the bounds of an account, new or changed: buckets begin full."""
        self.account = account
        self._requests = self._bucket(account.requests_per_minute)
        self._tokens = self._bucket(account.tokens_per_minute)

    def _bucket(self, per_minute: float | None) -> _Bucket | None:
        # A bucket that holds less than one request would let none through.
        return _Bucket(max(1.0, per_minute), max(1.0, per_minute), self._clock()) if per_minute else None

    def admit(self) -> None:
        """Count a request. Errors: ApiError 429 with the seconds to wait."""
        account = self.account
        if account.max_concurrent is not None and self.live >= account.max_concurrent:
            raise busy(f"{self.live} replies are in the making for this key, as many as may be", 1.0)
        if account.tokens_per_day is not None and self.tokens_today >= account.tokens_per_day:
            left = _seconds_of_day_left()
            raise busy(
                f"this key's {account.tokens_per_day:,} tokens of today are used; more from 00:00 UTC on",
                left,
                "insufficient_quota",
            )
        now = self._clock()
        if self._tokens is not None:
            self._tokens.fill(now)
            if self._tokens.level <= 0:
                wait = self._tokens.seconds_until(1.0)
                raise busy(f"this key has used its {account.tokens_per_minute:,g} tokens a minute", wait)
        if self._requests is not None:
            self._requests.fill(now)
            if self._requests.level < 1.0:
                wait = self._requests.seconds_until(1.0)
                raise busy(f"this key has used its {account.requests_per_minute:,g} requests a minute", wait)
            self._requests.level -= 1.0

    def charge(self, tokens: int) -> None:
        """Tokens of a prompt or a reply, known only afterwards: the next request waits for them."""
        self.tokens_today += tokens
        if self._tokens is not None:
            self._tokens.fill(self._clock())
            self._tokens.level -= tokens


class Meters:
    """The meters of all accounts; what was used today outlives the process."""

    def __init__(self, path: Path | None) -> None:
        """path: where the tokens of today are kept; None keeps nothing."""
        self._path = path
        self._day = _today()
        self._used: dict[str, int] = self._read()
        self._meters: dict[str, Meter] = {}
        self._saved = dict(self._used)

    def of(self, account: Account) -> Meter:
        """The meter of an account, held to what the account is now."""
        self._turn_day()
        meter = self._meters.get(account.name)
        if meter is None:
            meter = self._meters[account.name] = Meter(account, self._used.get(account.name, 0))
        elif meter.account != account:
            meter.bound(account)
        return meter

    @contextmanager
    def admitted(self, account: Account) -> Iterator[Meter]:
        """While a request of this account is answered. Errors: ApiError 429."""
        meter = self.of(account)
        meter.admit()
        meter.live += 1
        try:
            yield meter
        finally:
            meter.live -= 1

    def save(self) -> None:
        """Write what was used today, where it changed."""
        self._turn_day()
        used = {**self._used, **{name: meter.tokens_today for name, meter in self._meters.items()}}
        if self._path is not None and used != self._saved:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self._path, json.dumps({"day": self._day, "tokens": used}) + "\n")
            self._saved = used

    def _turn_day(self) -> None:
        if (today := _today()) != self._day:
            self._day, self._used = today, {}
            for meter in self._meters.values():
                meter.tokens_today = 0

    def _read(self) -> dict[str, int]:
        try:
            found = json.loads(self._path.read_text(encoding="utf-8")) if self._path else {}
            return {str(name): int(used) for name, used in found["tokens"].items()} if found["day"] == self._day else {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}  # no file yet, or one that nobody can read: the day begins anew


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


def _seconds_of_day_left() -> float:
    now = datetime.now(UTC)
    midnight = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return (midnight - now).total_seconds()
