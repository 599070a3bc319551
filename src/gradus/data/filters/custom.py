"""Filters from outside: "package.module:name" is a function of one text, or a class of filters."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from gradus.core.errors import ConfigError, DataError, did_you_mean
from gradus.core.fingerprint import file_digest
from gradus.core.settings import Settings
from gradus.data.filters.filter import Filter, Reason, TextFilter


class NoSettings(Settings):
    """A function has none."""


class FunctionFilter(TextFilter[NoSettings]):
    """A function from text to a short reason, or None. Errors: DataError where it returns anything else."""

    name = "function"
    settings_class = NoSettings

    def __init__(self, reference: str, function: Callable[[str], object], source: Path | None) -> None:
        super().__init__(NoSettings())
        self._reference = reference
        self._function = function
        self._source = source

    def identity(self) -> Mapping[str, Any]:
        """Its name and the content of the file it stands in; an edit to another file is not seen."""
        return {"function": self._reference, "source": file_digest(self._source) if self._source else None}

    def judge_text(self, text: str) -> Reason | None:
        answer = self._function(text)
        if answer is None:
            return None
        if not isinstance(answer, str) or not answer:
            raise DataError(
                f'filter "{self._reference}": expected a reason as text, or None, found {type(answer).__name__} '
                f"{answer!r:.60}"
            )
        return Reason(f"{self._reference}.{answer}")


def load_custom(reference: str, folder: Path) -> FunctionFilter | type[Filter[Any]]:
    """What "package.module:name" means: installed, or a module in `folder`. Errors: ConfigError."""
    module_name, _, name = reference.partition(":")
    importlib.invalidate_caches()
    sys.path.insert(0, str(folder.resolve()))
    try:
        module = _module(reference, module_name)
    finally:
        sys.path.remove(str(folder.resolve()))
    found = getattr(module, name, None)
    if isinstance(found, type) and issubclass(found, Filter):
        return found
    if not callable(found):
        what = "is not a function" if hasattr(module, name) else "does not exist"
        known = [known for known, value in vars(module).items() if callable(value)]
        raise ConfigError(f'filter "{reference}": {module_name}.{name} {what}{did_you_mean(name, known)}')
    source = getattr(module, "__file__", None)
    return FunctionFilter(reference, found, Path(source) if source else None)


def _module(reference: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing != name and not name.startswith(f"{missing}."):
            raise  # the module exists and misses something itself
        raise ConfigError(
            f'filter "{reference}": no module "{missing}"; expected "package.module:name", of a package that is '
            "installed or stands beside the roadmap"
        ) from None
    except ValueError:
        raise ConfigError(f'filter "{reference}": expected "package.module:name"') from None
