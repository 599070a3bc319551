"""Log-likelihood of continuations, many at once: what multiple-choice benchmarks and perplexity are made of.

A question is a few continuations whose contexts mostly begin alike, such as the choices of one item. What all its
sequences share is read once, and so is a beginning that many questions share, such as worked examples; questions of
like length share a batch, which holds no padding, and the head is worked out only where a continuation is told. None
of it changes the result beyond rounding. A model whose past is more than keys and values of all tokens before reads
every sequence by itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from gradus.engine.prefixes import prefix_groups
from gradus.eval.asked import Continuation, Likelihood
from gradus.model.batch import Documents
from gradus.model.branches import BranchedDocuments
from gradus.model.transformer import Transformer
from gradus.train.parallel import World

TOKENS_PER_BATCH = 4096
_BLOCK_ELEMENTS = 2**21  # logits held at a time: so few that a processor's cache holds them
_MIN_SHARED_TOKENS = 8  # nothing is decoded here, so that a short common beginning pays, such as MMLU's of a subject


Question = Sequence[Continuation]


@torch.inference_mode()
def likelihoods(
    model: Transformer,
    questions: Sequence[Question],
    *,
    tokens_per_batch: int = TOKENS_PER_BATCH,
    done: Collection[int] = (),
    world: World | None = None,
) -> Iterator[tuple[int, list[Likelihood]]]:
    """(number of a question, the likelihood of each of its continuations), in the order they are worked out.

    Sequences longer than the model's context lose tokens at their beginning. done: numbers that are not asked for;
    world: processes each of which hands out its share. Which questions share a batch goes by neither, so that the
    likelihoods do not either, to the last bit.
    """
    branched = model.config.attends_to_all_alone
    items = [_item(number, question, model.config.context, branched) for number, question in enumerate(questions)]
    # A beginning is shared short of the first place whose state is asked for.
    groups: Sequence[tuple[int, Sequence[int]]] = [(0, range(len(items)))]
    if branched:
        groups = prefix_groups([item.trunk[: item.first + 1] for item in items], _MIN_SHARED_TOKENS)
    batches = [
        _Batch(group, shared, batch)
        for group, (shared, members) in enumerate(groups)
        for batch in _batches([items[index] for index in members], shared, tokens_per_batch)
    ]
    missing = [batch for batch in batches if any(item.number not in done for item in batch.items)]
    read, beginning = -1, None
    for batch in _share(missing, world or World()):
        if batch.shared and batch.group != read:
            tokens = torch.tensor(batch.items[0].trunk[: batch.shared], device=model.device)
            beginning = model.prefill(tokens, Documents.of_lengths([batch.shared], tokens.device))[1].keys_values
            read = batch.group
        if branched:
            hidden, starts = _read_branched(model, batch.items, batch.shared, beginning if batch.shared else None)
        else:
            hidden, starts = _read_apart(model, batch.items)
        yield from _told(model, hidden, batch.items, starts)


@dataclass(frozen=True, slots=True)
class _Item:
    """A question as it is read.

    sequences: the model's inputs; targets: what each is followed by, one for each of its last places; trunk: what all
    sequences begin with, empty where they are read apart.
    """

    number: int
    sequences: tuple[Sequence[int], ...]
    targets: tuple[Sequence[int], ...]
    trunk: Sequence[int]

    @property
    def first(self) -> int:
        """The first place of a target in any sequence."""
        return min(len(s) - len(t) for s, t in zip(self.sequences, self.targets, strict=True))

    @property
    def num_tokens(self) -> int:
        """Tokens that are read."""
        return len(self.trunk) + sum(len(sequence) - len(self.trunk) for sequence in self.sequences)


def _item(number: int, question: Question, context: int, branched: bool) -> _Item:
    sequences, targets = [], []
    for continuation in question:
        assert continuation.context, "a continuation needs something before it"
        assert continuation.tokens, "a continuation has tokens"
        # The last token is told and never read.
        whole = [*continuation.context, *continuation.tokens][-(context + 1) :]
        sequences.append(whole[:-1])
        targets.append(whole[1:][-len(continuation.tokens) :])
    common = min(map(len, sequences)) if branched else 0
    for sequence in sequences[1:]:
        common = next((i for i in range(common) if sequence[i] != sequences[0][i]), common)
    return _Item(number, tuple(sequences), tuple(targets), sequences[0][:common])


@dataclass(frozen=True, slots=True)
class _Batch:
    """Items that are read at once. group: of those that begin with the same `shared` tokens."""

    group: int
    shared: int
    items: list[_Item]

    @property
    def num_tokens(self) -> int:
        """Tokens that are read behind the beginning."""
        return sum(item.num_tokens - self.shared for item in self.items)


def _share(batches: Sequence[_Batch], world: World) -> list[_Batch]:
    """This process's batches: a run of about as many tokens as every other's, so that few beginnings are read twice."""
    ends = list(accumulate(batch.num_tokens for batch in batches))
    return [
        batch
        for batch, end in zip(batches, ends, strict=True)
        if (2 * end - batch.num_tokens) * world.size // (2 * ends[-1]) == world.rank
    ]


def _batches(items: Sequence[_Item], shared: int, tokens_per_batch: int) -> Iterator[list[_Item]]:
    """Items of like length, longest first, as many as the budget holds without what all share; at least one."""
    batch: list[_Item] = []
    room = tokens_per_batch
    for item in sorted(items, key=lambda item: -item.num_tokens):
        size = item.num_tokens - shared
        if batch and size > room:
            yield batch
            batch, room = [], tokens_per_batch
        batch.append(item)
        room -= size
    if batch:
        yield batch


Starts = list[list[tuple[int, int]]]
"""Of each item's sequences: (row of the hidden states where its own part begins, place in the sequence there)."""


def _read_branched(
    model: Transformer, batch: list[_Item], shared: int, beginning: Sequence[tuple[Tensor, Tensor]] | None
) -> tuple[Tensor, Starts]:
    """Hidden states (N, width) of all items behind their common beginning, and where sequences lie in them.

    Rows of a trunk precede those of its branches; `_row` finds a place of a sequence.
    """
    tokens: list[int] = []
    positions: list[int] = []
    branch: list[int] = []
    lengths: list[int] = []
    starts: Starts = []
    for item in batch:
        begin = len(tokens)
        trunk = len(item.trunk)
        tokens += item.trunk[shared:]
        positions += range(shared, trunk)
        branch += [0] * (trunk - shared)
        found = [(begin, shared)]
        for number, sequence in enumerate(item.sequences, start=1):
            found.append((len(tokens), trunk))
            tokens += sequence[trunk:]
            positions += range(trunk, len(sequence))
            branch += [number] * (len(sequence) - trunk)
        starts.append(found)
        lengths.append(len(tokens) - begin)
    device = model.device
    documents = Documents.of_lengths(lengths, device)
    past = BranchedDocuments(documents, torch.tensor(branch), beginning)
    hidden = model.decode(torch.tensor(tokens, device=device), torch.tensor(positions, device=device), past)
    return hidden, starts


def _read_apart(model: Transformer, batch: list[_Item]) -> tuple[Tensor, Starts]:
    """As `_read_branched`, every sequence a document of its own."""
    sequences = [sequence for item in batch for sequence in item.sequences]
    ends = iter(torch.tensor([0, *map(len, sequences)]).cumsum(0).tolist())
    starts = [[(0, 0), *((next(ends), 0) for _ in item.sequences)] for item in batch]
    device = model.device
    tokens = torch.tensor([token for sequence in sequences for token in sequence], device=device)
    return model(tokens, Documents.of_lengths(list(map(len, sequences)), device)), starts


def _row(starts: list[tuple[int, int]], sequence: int, place: int, trunk: int) -> int:
    row, first = starts[0] if place < trunk else starts[sequence + 1]
    return row + place - first


def _told(
    model: Transformer, hidden: Tensor, batch: list[_Item], starts: Starts
) -> Iterator[tuple[int, list[Likelihood]]]:
    """The likelihoods that the hidden states of a batch give."""
    rows: list[int] = []
    targets: list[int] = []
    for item, found in zip(batch, starts, strict=True):
        for number, (sequence, told) in enumerate(zip(item.sequences, item.targets, strict=True)):
            places = range(len(sequence) - len(told), len(sequence))
            rows += [_row(found, number, place, len(item.trunk)) for place in places]
            targets += told
    logp, right = _target_logp(model, hidden, torch.tensor(rows), torch.tensor(targets))
    end = 0
    for item in batch:
        answers = []
        for told in item.targets:
            begin, end = end, end + len(told)
            total = float(logp[begin:end].double().sum())
            answers.append(Likelihood(total, bool(right[begin:end].all()), len(told)))
        yield item.number, answers


def _target_logp(model: Transformer, hidden: Tensor, rows: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Of each target its log-probability (M,) fp32 and whether it is the likeliest (M,), both on the host.

    rows, targets: (M,), on the host. The head is worked out once for each row that is asked for.
    """
    distinct, owner = torch.unique(rows, return_inverse=True)
    logp, right = torch.empty(len(rows)), torch.empty(len(rows), dtype=torch.bool)
    size = max(1, _BLOCK_ELEMENTS // model.config.vocab_size)
    for start in range(0, len(distinct), size):
        logits = model.head(hidden[distinct[start : start + size].to(hidden.device)]).float()
        chosen = ((owner >= start) & (owner < start + size)).nonzero()[:, 0]
        here = (owner[chosen] - start).to(hidden.device), targets[chosen].to(hidden.device)
        right[chosen] = (logits.argmax(-1)[here[0]] == here[1]).cpu()
        logp[chosen] = logits.log_softmax(-1)[here].cpu()
    return logp, right
