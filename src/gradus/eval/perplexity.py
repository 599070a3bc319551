"""Perplexity of whole documents: every token is told once, in windows that the model's context holds.

A document stands by itself behind the end-of-text token and is never put into a template. Windows follow one another;
the first token of each is told from the last of the one before, those of the last window from as many as the context
holds. Words and bytes, by which a perplexity can be compared over tokenizers, are those of the text as it is published.
Source: lm-eval, `loglikelihood_rolling` and its wikitext task.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

from gradus.core.statistics import Z95
from gradus.eval.asked import Asked, Continuation, Likelihood
from gradus.tokenizer.specials import END_OF_TEXT
from gradus.tokenizer.tokenizer import Tokenizer

_SPACE = re.compile(r"\s+")


def document_windows(tokens: Sequence[int], first: int, context: int) -> tuple[Continuation, ...]:
    """Windows of at most `context` tokens to read that tell each token once. first: what the first is told from.

    The last window begins early enough to be as long as the others.
    """
    windows = []
    for start in range(0, len(tokens), context):
        end = min(start + context, len(tokens))
        before = tokens[end - context - 1 : start] if start else [first]
        windows.append(Continuation(before, tokens[start:end]))
    return tuple(windows)


def asked_documents(documents: Sequence[tuple[str, str, str]], tokenizer: Tokenizer, context: int) -> list[Asked]:
    """Documents as (id, text that is told, text whose words and bytes count) ready for a model of this context.

    One without tokens is left out.
    """
    first = tokenizer.special(END_OF_TEXT)
    encoded = tokenizer.encode_lists([told for _, told, _ in documents])
    found = []
    for (name, told, counted), tokens in zip(documents, encoded, strict=True):
        if tokens:
            lengths = (len(_SPACE.split(counted)), len(counted.encode("utf-8")))
            windows = document_windows(tokens, first, context)
            found.append(Asked(name, told, (), windows, lengths, 0, is_document=True))
    return found


def perplexity_measures(items: Sequence[Asked], answers: Sequence[Sequence[Likelihood]]) -> dict[str, Any]:
    """ "word_perplexity", "byte_perplexity", "token_perplexity" and "bits_per_byte" of documents together.

    n counts words, bytes or tokens. The interval is that of a ratio of sums over documents; one document has none.
    """
    nats = [-sum(answer.logp for answer in found) for found in answers]
    units = {
        "word": [item.lengths[0] for item in items],
        "byte": [item.lengths[1] for item in items],
        "token": [sum(answer.num_tokens for answer in found) for found in answers],
    }
    measures = {}
    for name, counts in units.items():
        mean, error = _ratio(nats, counts)
        measures[f"{name}_perplexity"] = _measure(mean, error, sum(counts), exp_nats, exp_nats(mean))
    mean, error = _ratio(nats, units["byte"])
    bits = 1 / math.log(2)
    measures["bits_per_byte"] = _measure(mean, error, sum(units["byte"]), lambda nats: nats * bits, bits)
    # Their mean is the nats of a byte: what pairs two models on the same documents, in whatever unit.
    scale = len(items) / sum(units["byte"])
    paired = {item.id: value * scale for item, value in zip(items, nats, strict=True)}
    return {name: measure | {"items": paired} for name, measure in measures.items()}


def exp_nats(nats: float) -> float:
    """exp, at most about the largest number there is: the perplexity of a model that has diverged."""
    return math.exp(min(nats, 709.0))


def _ratio(sums: Sequence[float], counts: Sequence[int]) -> tuple[float, float | None]:
    """sum(sums) / sum(counts) and its standard error, documents being independent; of one it is not known."""
    total = sum(counts)
    mean = sum(sums) / total
    residuals = sum((s - mean * c) ** 2 for s, c in zip(sums, counts, strict=True))
    return mean, math.sqrt(residuals * len(sums) / (len(sums) - 1)) / total if len(sums) > 1 else None


def _measure(mean: float, error: float | None, n: int, shown: Callable[[float], float], slope: float) -> dict[str, Any]:
    found: dict[str, Any] = {"value": shown(mean), "n": n, "lower_is_better": True}
    if error is None:
        return found
    bounds = {"lower": shown(mean - Z95 * error), "upper": shown(mean + Z95 * error)}
    return found | bounds | {"standard_error": min(slope * error, sys.float_info.max)}
