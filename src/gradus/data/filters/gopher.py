"""Both Gopher filters by one name: quality, then repetition."""

from __future__ import annotations

from pathlib import Path

from gradus.core.settings import Settings
from gradus.data.filters.batch import TextBatch
from gradus.data.filters.filter import Filter, Reason, judge_in_turn
from gradus.data.filters.gopher_quality import GopherQuality, GopherQualityFilter
from gradus.data.filters.gopher_repetition import GopherRepetition, GopherRepetitionFilter


class Gopher(Settings):
    """The settings of each."""

    quality: GopherQuality = GopherQuality()
    repetition: GopherRepetition = GopherRepetition()


class GopherFilter(Filter[Gopher]):
    """Reasons carry the name of the filter that they come from."""

    name = "gopher"
    settings_class = Gopher

    def __init__(self, settings: Gopher, folder: Path = Path()) -> None:
        super().__init__(settings, folder)
        self._filters = (GopherQualityFilter(settings.quality), GopherRepetitionFilter(settings.repetition))

    def identity(self) -> dict[str, str]:
        return {filter_.name: filter_.fingerprint for filter_ in self._filters}

    def judge(self, batch: TextBatch) -> list[Reason | None]:
        return judge_in_turn(self._filters, batch)
