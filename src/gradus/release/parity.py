"""Whether another program computes the model that we do: equal logits, equal greedy text, equal ids of text.

Everything is in fp32 on a CPU. Two programs add in another order, so logits agree to rounding, and where two tokens
stand closer than that a greedy choice between them is a tie; ties are counted and told.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from gradus.core.errors import ExportError
from gradus.engine.decoding import GreedyStream, decode_streams
from gradus.model.batch import Documents
from gradus.model.transformer import Transformer
from gradus.release.check_text import CheckText
from gradus.tokenizer.tokenizer import Tokenizer

# Of the largest logit: what fp32 leaves over some dozens of layers (seen: 2e-6 to 2e-5).
TOLERANCE = 1e-4
GREEDY_TOKENS = 32
_PLACES = 512


class Reader(Protocol):
    """Another program with an exported model. unread: strings that it is known to read otherwise, left out of text."""

    name: str
    unread: tuple[str, ...]

    def logits(self, ids: Sequence[int], places: Sequence[int]) -> Tensor:
        """(len(places), V) fp32: what follows each of these places of one row."""
        ...

    def greedy(self, beginnings: Sequence[Sequence[int]], count: int) -> list[list[int]]:
        """The likeliest `count` tokens behind each beginning, end tokens no end."""
        ...

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of texts without control tokens."""
        ...


@dataclass(frozen=True)
class Reference:
    """What our own decoder says. places: (P,) of the row; logits: (P, V) fp32; answers: GREEDY_TOKENS ids each."""

    text: CheckText
    places: list[int]
    logits: Tensor
    answers: list[list[int]]
    model: Transformer
    tokenizer: Tokenizer

    @property
    def tolerance(self) -> float:
        """How far a logit may be off."""
        return TOLERANCE * max(1.0, self.logits.abs().max().item())


class OwnReader:
    """Our decoder with weights that were written and read again."""

    unread: tuple[str, ...] = ()

    def __init__(self, name: str, model: Transformer, tokenizer: Tokenizer) -> None:
        self.name, self._model, self._tokenizer = name, model, tokenizer

    def logits(self, ids: Sequence[int], places: Sequence[int]) -> Tensor:
        return row_logits(self._model, ids, places)

    def greedy(self, beginnings: Sequence[Sequence[int]], count: int) -> list[list[int]]:
        return _answers(self._model, beginnings, count)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return self._tokenizer.encode_lists(texts)


def make_reference(model: Transformer, tokenizer: Tokenizer, text: CheckText) -> Reference:
    """Our side, once for all readers. The last quarter of the places are the last of the row."""
    length = len(text.row)
    late = range(max(0, length - _PLACES // 4), length)
    spread = torch.linspace(0, length - 1, _PLACES - len(late)).long().tolist()
    places = sorted({*late, *spread})
    count = min(GREEDY_TOKENS, max(1, model.config.context - max(map(len, text.beginnings))))
    answers = _answers(model, text.beginnings, count)
    logits = row_logits(model, text.row, places)
    return Reference(text, places, logits, answers, model, tokenizer)


def _answers(model: Transformer, beginnings: Sequence[Sequence[int]], count: int) -> list[list[int]]:
    streams = [GreedyStream(beginning, count) for beginning in beginnings]
    for _ in decode_streams(model, streams, model.config.vocab_size):
        pass
    return [stream.tokens for stream in streams]


@torch.no_grad()
def row_logits(model: Transformer, ids: Sequence[int], places: Sequence[int]) -> Tensor:
    """(P, V) fp32: our decoder's logits at places of one row."""
    hidden = model(torch.tensor(ids, device=model.device), Documents.of_lengths([len(ids)], model.device))
    return model.head(hidden[torch.tensor(places)]).float().cpu()


def prove_equal(reference: Reference, reader: Reader) -> dict[str, Any]:
    """The figures of a reader that must agree. Errors: ExportError for the first thing in which it does not."""
    found = reader.logits(reference.text.row, reference.places)
    difference = _largest_difference(reference.logits, found, reader.name)
    if not difference <= reference.tolerance:
        worst = (reference.logits - found).abs().amax(dim=1).nan_to_num(math.inf).argmax().item()
        raise ExportError(
            f"{reader.name} computes another model: at token {reference.places[int(worst)]} of "
            f"{len(reference.text.row)} a logit is off by {difference:.2g}, and rounding explains at most "
            f"{reference.tolerance:.2g}"
        )
    equal, ties = _compare_greedy(reference, reader)
    return {
        "reader": reader.name,
        "tokens": len(reference.text.row),
        "largest_difference": difference,
        "largest_logit": reference.logits.abs().max().item(),
        "greedy": {"beginnings": len(reference.answers), "equal": equal, "ties": ties},
        **_compare_ids(reference, reader),
    }


def measure_loss(reference: Reference, reader: Reader, most_nats: float) -> dict[str, Any]:
    """The figures of a reader whose weights are rounded: what that costs on the row.

    kl_nats: mean divergence from ours; perplexity: of the row by ours and by the reader. Errors: ExportError where the
    divergence is more than `most_nats`, or ids of text differ.
    """
    found = reader.logits(reference.text.row, reference.places)
    difference = _largest_difference(reference.logits, found, reader.name)
    ours, theirs = reference.logits.log_softmax(-1), found.log_softmax(-1)
    divergence = (ours.exp() * (ours - theirs)).sum(-1).mean().item()
    if not divergence <= most_nats:
        raise ExportError(
            f"{reader.name}: rounding the weights costs {divergence:.3g} nats a token (mean divergence from the "
            f"model), more than {most_nats:g}; choose a type with more bits"
        )
    answers = reader.greedy(reference.text.beginnings, len(reference.answers[0]))
    equal = sum(a == b for a, b in zip(reference.answers, answers, strict=True))
    return {
        "reader": reader.name,
        "tokens": len(reference.text.row),
        "largest_difference": difference,
        "kl_nats": max(0.0, divergence),
        "most_nats": most_nats,
        "perplexity": {"ours": _perplexity(reference, ours), "exported": _perplexity(reference, theirs)},
        "greedy": {"beginnings": len(answers), "equal": equal},
        **_compare_ids(reference, reader),
    }


def loss_text(figures: dict[str, Any]) -> str:
    """What rounding cost, in a line."""
    ours, exported = figures["perplexity"]["ours"], figures["perplexity"]["exported"]
    return (
        f"{figures['reader']}: divergence {figures['kl_nats']:.2g} nats a token (at most {figures['most_nats']:g}), "
        f"perplexity {ours:.4g} to {exported:.4g}, {figures['greedy']['equal']} of "
        f"{figures['greedy']['beginnings']} greedy answers the same"
    )


def _largest_difference(ours: Tensor, theirs: Tensor, name: str) -> float:
    if theirs.shape != ours.shape:
        raise ExportError(f"{name} gives logits of shape {tuple(theirs.shape)}, expected {tuple(ours.shape)}")
    return (ours - theirs).abs().max().item()


def _perplexity(reference: Reference, logp: Tensor) -> float:
    """Of the row's tokens behind the places."""
    row = reference.text.row
    told = [(index, row[place + 1]) for index, place in enumerate(reference.places) if place + 1 < len(row)]
    rows, tokens = (torch.tensor(part) for part in zip(*told, strict=True))
    return math.exp(-logp[rows, tokens].mean().item())


def _compare_greedy(reference: Reference, reader: Reader) -> tuple[int, int]:
    """(equal answers, answers that part at a tie). Errors: ExportError for one that is neither."""
    answers = reader.greedy(reference.text.beginnings, len(reference.answers[0]))
    equal = ties = 0
    for beginning, ours, theirs in zip(reference.text.beginnings, reference.answers, answers, strict=True):
        if ours == theirs:
            equal += 1
            continue
        place = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), len(theirs))
        gap = math.inf
        if place < len(theirs):
            read = [*beginning, *ours[:place]]
            logits = row_logits(reference.model, read, [len(read) - 1])[0]
            gap = (logits[ours[place]] - logits[theirs[place]]).item()
        if not gap <= 2 * reference.tolerance:
            raise ExportError(
                f"{reader.name} goes on otherwise: behind {beginning[:8]}... ({len(beginning)} tokens) it says "
                f"{theirs[: place + 3]}, ours says {ours[: place + 3]}"
            )
        ties += 1
    return equal, ties


def _compare_ids(reference: Reference, reader: Reader) -> dict[str, Any]:
    """How much text had the same ids. Errors: ExportError for the first that has not."""
    texts = reference.text.texts
    for string in reader.unread:
        texts = [text.replace(string, "") for text in texts]
    expected = reference.tokenizer.encode_lists(texts)
    for text, ours, theirs in zip(texts, expected, reader.encode(texts), strict=True):
        if ours != theirs:
            place = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), 0)
            raise ExportError(
                f"{reader.name} reads text otherwise: {text[:60]!r} has the ids {theirs[place : place + 6]} at token "
                f"{place}, expected {ours[place : place + 6]}"
            )
    return {"tokenizer": {"texts": len(texts), "tokens": sum(map(len, expected))}}
