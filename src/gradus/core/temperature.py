"""The temperature of sampling, as a field of settings: what logits are divided by."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

LEAST_TEMPERATURE, MOST_TEMPERATURE = 1e-4, 1000.0
"""Above 0. Logits over much less are infinite in float32, and a distribution over them has no numbers."""


def check_temperature(temperature: float) -> float:
    """The temperature. Errors: ValueError where logits divided by it are no numbers."""
    if 0 < temperature < LEAST_TEMPERATURE:
        raise ValueError(f"expected 0, or at least {LEAST_TEMPERATURE:g}: logits divided by less are no numbers")
    return temperature


Temperature = Annotated[float, Field(ge=0, le=MOST_TEMPERATURE), AfterValidator(check_temperature)]
"""0 takes the likeliest token."""

DrawingTemperature = Annotated[float, Field(ge=LEAST_TEMPERATURE, le=MOST_TEMPERATURE)]
"""For where answers must differ from one another."""
