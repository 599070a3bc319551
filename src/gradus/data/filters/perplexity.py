"""Texts that a reference model finds too surprising, or not surprising at all.

Limits are percentiles of what the model says of reference texts it was not trained on, since a perplexity by itself
means something only for one model. Source of filtering by n-gram perplexity: CCNet (Wenzek et al. 2020, section 3.4),
which divides a corpus at its 30th and 60th percentile.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from gradus.core.files import expand_path
from gradus.core.fingerprint import file_digest
from gradus.core.settings import Settings
from gradus.data.filters.batch import TextBatch
from gradus.data.filters.filter import Filter, Reason
from gradus.data.filters.ngram_model import load_ngram_model


class Perplexity(Settings):
    """model: the file of an n-gram model; see `ngram_model.train_ngram_model`.

    max_percentile: a text goes that is more surprising than this percentage of the reference texts.
    min_percentile: and one that is less surprising than this percentage, such as a list of one word; off by default.
    """

    model: str
    max_percentile: float | None = Field(default=99.0, gt=0, le=100)
    min_percentile: float | None = Field(default=None, ge=0, lt=100)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        least, most = self.min_percentile, self.max_percentile
        if least is not None and most is not None and least >= most:
            raise ValueError(f"min_percentile = {least:g} is not below max_percentile = {most:g}")
        return self


class PerplexityFilter(Filter[Perplexity]):
    """Errors: DataError where the model cannot be read."""

    name = "perplexity"
    settings_class = Perplexity

    def __init__(self, settings: Perplexity, folder: Path = Path()) -> None:
        super().__init__(settings, folder)
        self._path = expand_path(settings.model, folder)
        self._model = load_ngram_model(self._path)
        self._digest = file_digest(self._path)
        least, most = settings.min_percentile, settings.max_percentile
        self._least = 0.0 if least is None else self._model.perplexity_at(least)
        self._most = math.inf if most is None else self._model.perplexity_at(most)

    def identity(self) -> Mapping[str, Any]:
        return {"model": self._digest}

    def judge(self, batch: TextBatch) -> list[Reason | None]:
        return [self._outside(value) for value in self._model.perplexities_of(batch).tolist()]

    def _outside(self, value: float) -> Reason | None:
        if math.isinf(value):
            return self.drop("no_words")
        if value > self._most:
            return self.drop("too_high", f"perplexity {value:.0f}, at most {self._most:.0f}")
        if value < self._least:
            return self.drop("too_low", f"perplexity {value:.0f}, at least {self._least:.0f}")
        return None
