"""What the user can get wrong, as a tree of exceptions, and the "did you mean" that goes with it.

    GradusError
    +-- ConfigError          a roadmap, suite or setting is wrong (all problems at once)
    +-- DataError            text or conversations cannot be read as asked
    +-- ArtifactError        an artifact is missing, damaged or not what it is used as
    +-- TrainingError        training cannot start or go on
    +-- EndpointError        a remote model cannot be asked, or gave no usable answer
    |   +-- BudgetError      what may be spent on it is spent
    +-- GenerationError      decoding cannot start, or go on as it was asked to
    +-- ToolError            a tool call cannot be answered (becomes result text for the model)
    +-- ExportError          an exported model would not be the same model
    +-- GateFailedError      a measured result misses its gate
    +-- MissingPackageError  an optional package is not installed

A message says where, what was found, what was expected, and the fix. The command line prints it as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher


class GradusError(Exception):
    """A mistake or condition that the user can act on; never a bug of ours."""


class ConfigError(GradusError):
    """Every problem of one configuration, one line each, in `problems`."""

    def __init__(self, problems: Sequence[str] | str) -> None:
        self.problems: list[str] = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class DataError(GradusError):
    """Text, shards or conversations that cannot be read or used as asked."""


class ArtifactError(GradusError):
    """An artifact folder that is missing, damaged, foreign or of another kind."""


class TrainingError(GradusError):
    """Training cannot start or cannot go on."""


class EndpointError(GradusError):
    """A remote model cannot be asked, or gave no usable answer; what was answered so far is kept."""


class BudgetError(EndpointError):
    """The next request could cost more than may still be spent; what was answered so far is kept."""


class GenerationError(GradusError):
    """Decoding cannot start, or cannot go on as it was asked to."""


class ToolError(GradusError):
    """A tool call that cannot be answered; its text is what the model is shown."""


class ExportError(GradusError):
    """An exported model that other programs cannot load, or that answers otherwise than ours; nothing is left of it."""


class GateFailedError(GradusError):
    """A measured result misses a gate; the walk stops here."""


class MissingPackageError(GradusError):
    """An optional package is needed and absent.

    package: the import or distribution name; extra: the optional-dependency group that brings it, or None
    when it is installed by its own name; options: of pip, where that needs any.
    """

    def __init__(self, package: str, extra: str | None = None, options: str = "") -> None:
        self.package = package
        self.extra = extra
        install = f'pip install "gradus[{extra}]"' if extra else " ".join(f"pip install {options} {package}".split())
        super().__init__(f'the package "{package}" is needed and not installed; run: {install}')


_LEAST_LIKENESS = 0.6
# What else a thing is called, where letters alone lead elsewhere: "gpu" is more like "cpu" than like "cuda".
_OTHER_NAMES = {"gpu": "cuda", "nvidia": "cuda", "tpu": "xla", "bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}


def nearest(name: str, options: Iterable[str]) -> str | None:
    """The option most like `name`, or None where none is near enough to be what was meant."""
    best, best_score = None, 0.0
    typed = name.lower()
    options = tuple(options)
    if _OTHER_NAMES.get(typed) in options:
        return _OTHER_NAMES[typed]
    for option in options:
        known = option.lower()
        matcher = SequenceMatcher(None, typed, known)
        # By their lengths alone most pairs are too unlike; that of a hostile name would take minutes to compare.
        score = matcher.ratio() if matcher.real_quick_ratio() >= _LEAST_LIKENESS else 0.0
        # A name cut short, or written on, is a likely slip however long the rest is.
        if len(typed) >= 3 and (known.startswith(typed) or typed.startswith(known)):
            score = max(score, 0.75)
        if score > best_score:
            best, best_score = option, score
    return best if best_score >= _LEAST_LIKENESS else None


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """'; did you mean "x"?' for the nearest option, '' where there is none."""
    found = nearest(name, options)
    return f'; did you mean "{found}"?' if found is not None else ""
