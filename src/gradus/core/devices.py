"""The device table: peak rates by number format, memory, prices and measured rates, built in and the user's own.

`devices.toml` beside this file holds the sources of its figures. What is not in the table is unknown and stays so:
a peak is never guessed from a device that only sounds alike.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from gradus.core.errors import ConfigError
from gradus.core.settings import Settings, load_settings

DEVICES_FILE = "devices.toml"
CPU = "cpu"
# Training of other kinds that does the same work, nearest first.
_ALIKE = {
    "sft": ("pretrain",), "dpo": ("sft", "pretrain"), "grpo": ("sft", "pretrain"), "midtrain": ("pretrain",),
    "extend": ("pretrain",), "experts": ("pretrain",),
}  # fmt: skip

Format = Literal["fp32", "bf16", "fp16"]


class Rate(Settings):
    """How fast one kind of work goes. per_second: units of its work; overhead_seconds: what a stage takes besides.

    width: of the model that a training rate was measured with.
    """

    per_second: float = Field(gt=0)
    overhead_seconds: float = Field(default=0.0, ge=0)
    width: int | None = Field(default=None, ge=1)


class DeviceEntry(Settings):
    """One table of devices.toml. memory_gib: None for this machine's own.

    flops_by_width, fp32_flops_by_width: by the width of the model, the latter where it is trained in fp32.
    """

    names: tuple[str, ...] = ()
    peak_flops: dict[Format, float] = Field(default_factory=dict)
    mfu: float = Field(default=0.35, gt=0, le=1)
    flops_per_second: float | None = Field(default=None, gt=0)
    flops_by_width: dict[str, float] = Field(default_factory=dict)
    fp32_flops_by_width: dict[str, float] = Field(default_factory=dict)
    training_overhead_seconds: float = Field(default=5.0, ge=0)
    memory_gib: float | None = Field(default=None, gt=0)
    price_per_hour: float = Field(default=0.0, ge=0)
    rates: dict[str, Rate] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _has_a_rate(self) -> DeviceEntry:
        if self.flops_per_second is None and not self.peak_flops and not self.flops_by_width:
            raise ValueError("a device needs flops_per_second, or peak_flops such as { bf16 = 989e12 }")
        for name in ("flops_by_width", "fp32_flops_by_width"):
            if not all(width.isdigit() and int(width) for width in getattr(self, name)):
                raise ValueError(f'{name}: keys are model widths, such as "256"')
        return self

    @property
    def half_precision_peak(self) -> float | None:
        """The highest peak below fp32, or that of fp32 where it is all that is known; None where none is."""
        half = [peak for name, peak in self.peak_flops.items() if name != "fp32"]
        return max(half or self.peak_flops.values(), default=None)

    def training_rate(self, kind: str, width: int, in_fp32: bool = False) -> tuple[float, float]:
        """(FLOPs a second of one device, seconds besides) of a kind of training stage and a model of this width.

        A measured rate of the kind, or of one alike, counts first, carried over to another width as the rates by width
        go; then the stated rate, the rates by width, the assumed share of the peak.
        """
        known = (self.rates.get(name) for name in (kind, *_ALIKE.get(kind, ())))
        measured = next((rate for rate in known if rate is not None), None)
        if measured is not None:
            scale = self.sustained_flops(width, in_fp32) / self.sustained_flops(measured.width or width, in_fp32)
            return measured.per_second * scale, measured.overhead_seconds
        return self.sustained_flops(width, in_fp32), self.training_overhead_seconds

    def sustained_flops(self, width: int, in_fp32: bool = False) -> float:
        """The rate that is assumed without a measured one; between two widths on a straight line of the logarithms."""
        if self.flops_per_second is not None:
            return self.flops_per_second
        by_width = (in_fp32 and self.fp32_flops_by_width) or self.flops_by_width
        if not by_width:
            assert self.half_precision_peak is not None
            return self.mfu * self.half_precision_peak
        known = sorted((math.log(int(w)), math.log(rate)) for w, rate in by_width.items())
        at = min(max(math.log(width), known[0][0]), known[-1][0])
        for (low, before), (high, after) in pairwise(known):
            if at <= high:
                return math.exp(before + (after - before) * (at - low) / (high - low))
        return math.exp(known[-1][1])


def known_devices(home: Path) -> dict[str, DeviceEntry]:
    """The built-in table with what `home`/devices.toml states over it, key by key. Errors: ConfigError."""
    built_in = resources.files("gradus.core").joinpath(DEVICES_FILE)
    tables = tomllib.loads(built_in.read_text(encoding="utf-8"))
    own = home / DEVICES_FILE
    if own.is_file():
        try:
            stated = tomllib.loads(own.read_text(encoding="utf-8-sig"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{own}: not valid TOML: {error}") from None
        for name, table in stated.items():
            if not isinstance(table, dict):
                raise ConfigError(f"{own}: {name} = {table!r}: expected a table, [{name}]")
            tables[name] = _over(tables.get(name, {}), table)
    return {name: load_settings(DeviceEntry, table, f"{DEVICES_FILE}: [{name}]") for name, table in tables.items()}


def _over(before: Mapping[str, Any], stated: Mapping[str, Any]) -> dict[str, Any]:
    """`stated` over `before`; the rates are joined, all else is replaced.

    Rates by width are of this machine, whatever it computes in: those of another in fp32 do not stand beside them.
    """
    rates = {**before.get("rates", {}), **stated.get("rates", {})}
    others = {key: value for key, value in before.items() if key != "fp32_flops_by_width"}
    return {**(others if "flops_by_width" in stated else before), **stated, "rates": rates}


def device_called(driver_name: str, devices: Mapping[str, DeviceEntry]) -> str | None:
    """The table's name of the device that the driver calls so, None where there is none.

    The whole name decides: an "RTX 4090 D", a laptop's chip and a slice of a device have other peaks than their
    namesake.
    """
    plain = driver_name.removeprefix("NVIDIA ")
    return next((name for name, entry in devices.items() if plain in entry.names), None)
