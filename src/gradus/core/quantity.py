"""Numbers with units: reading "20 tokens/param" or "3B tokens", and writing figures for people."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from gradus.core.errors import ConfigError, did_you_mean

FORMS = '"20 tokens/param", "4e19 flops", "5_000 steps", "3B tokens", "1.5 epochs"'
_UNITS = {
    "tokens/param": "tokens/param",
    "tokens/parameter": "tokens/param",
    "flops": "flops",
    "flop": "flops",
    "steps": "steps",
    "step": "steps",
    "tokens": "tokens",
    "token": "tokens",
    "epochs": "epochs",
    "epoch": "epochs",
    "documents": "documents",
    "document": "documents",
    "bytes": "bytes",
    "byte": "bytes",
}
_WHOLE = frozenset({"steps", "documents"})  # nothing is trained for half of one
# Units that bring their scale: "40 GB" is 4e10 bytes.
_BYTE_SCALES = {"kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12}
_SCALES = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "B": 1e9, "G": 1e9, "T": 1e12}
_TEXT = re.compile(r"\s*([0-9][0-9_]*(?:\.[0-9_]+)?(?:[eE][+-]?[0-9]+)?)\s*([kKMBGT]?)\s+?([A-Za-z/]+)\s*")


@dataclass(frozen=True)
class Quantity:
    """A positive number of one unit: steps, tokens, flops, tokens/param, epochs, documents or bytes.

    As it is read, steps and documents are whole.

    In a settings class it is a field like any other: its value is the text that `parse_quantity` reads.
    """

    value: float
    unit: str

    def __str__(self) -> str:
        return f"{self.value:,.15g} {self.unit}".replace(",", "_")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        def read(value: Any) -> Quantity:
            if isinstance(value, Quantity):
                return value
            if not isinstance(value, str):
                raise ValueError(f"expected a number with its unit, one of {FORMS}, found {value!r}")
            try:
                return parse_quantity(value)
            except ConfigError as error:
                raise ValueError(str(error)) from None

        return core_schema.no_info_plain_validator_function(read, serialization=core_schema.to_string_ser_schema())


def parse_quantity(text: str, units: tuple[str, ...] | None = None) -> Quantity:
    """Read a number with its unit; `units` restricts which are allowed. Errors: ConfigError."""
    matched = _TEXT.fullmatch(text)
    if matched is None:
        raise ConfigError(f'cannot read "{text}" as a quantity; write one of {FORMS}')
    number, scale, unit_text = matched.groups()
    byte_scale = _BYTE_SCALES.get(unit_text.lower()) if not scale else None
    unit = "bytes" if byte_scale else _UNITS.get(unit_text.lower())
    if unit is None:
        raise ConfigError(
            f'unknown unit "{unit_text}" in "{text}"{did_you_mean(unit_text, _UNITS)}; write one of {FORMS}'
        )
    if units is not None and unit not in units:
        raise ConfigError(f'"{text}": the unit must be {" or ".join(units)} here, found {unit}')
    value = float(number.replace("_", "")) * _SCALES[scale] * (byte_scale or 1.0)
    if not value > 0 or value == float("inf"):
        raise ConfigError(f'"{text}": a quantity must be positive and finite')
    if unit in _WHOLE:
        # In decimal: as a binary fraction 1.005k is not 1005.
        exact = Decimal(number.replace("_", "")) * Decimal(_SCALES[scale])
        if exact != exact.to_integral_value():
            raise ConfigError(f'"{text}": expected a whole number of {unit}')
        value = float(exact)
    return Quantity(value, unit)


def format_count(value: float) -> str:
    """1_234 -> 1,234; 12_345 -> 12.3 k; 1_200_000 -> 1.2 M; 4e19 -> 4e+19 past the quadrillions."""
    size = abs(value)
    if size < 10_000:
        return f"{value:,.0f}" if float(value).is_integer() or size >= 100 else f"{value:,.3g}"
    for limit, divisor, suffix in ((1e6, 1e3, "k"), (1e9, 1e6, "M"), (1e12, 1e9, "B"), (1e15, 1e12, "T")):
        # The rounded figure decides, so that 999,960 is 1 M and never 1000 k.
        if float(f"{size / divisor:.3g}") < 1000 and size < limit:
            return f"{value / divisor:.3g} {suffix}"
    return "1 M" if size < 1e7 else "1 B" if size < 1e10 else "1 T" if size < 1e13 else f"{value:.3g}"


def format_bytes(value: float) -> str:
    """Bytes in binary units: 512 B, 1.5 KiB, 2.0 GiB."""
    size = float(value)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{size:,.0f} {unit}" if unit == "B" else f"{size:,.1f} {unit}"
        size /= 1024
    return f"{size:,.1f} TiB"


def format_seconds(seconds: float) -> str:
    """0.25 s, 8.1 s, 42 s, 3 m 20 s, 2 h 5 m, 3 d 4 h."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} m {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} m"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"
