"""The engine: answers conversations, many at once or one as a stream, and runs the calculator in the loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from gradus.conversation.formats.wire import Format
from gradus.core.errors import ConfigError
from gradus.engine.batching import DecodeBatch, TokenStream
from gradus.engine.constraint import Constraints
from gradus.engine.prefixes import prefix_groups
from gradus.engine.turn import Reply, Request, StreamEvent, Turn
from gradus.model.cost import kv_bytes_per_token
from gradus.model.transformer import Transformer
from gradus.tokenizer.tokenizer import Tokenizer
from gradus.tools.toolbox import ToolBox

MAX_BATCH = 128
CACHE_BYTES = 2**29
_JOIN_SHARE = 16  # wait until 1/16 of the slots are free: a prefill costs about a step however small it is


class Engine:
    """A model with its tokenizer, conversation format and tools."""

    def __init__(
        self,
        model: Transformer,
        tokenizer: Tokenizer,
        form: Format,
        toolbox: ToolBox,
        max_batch: int = MAX_BATCH,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        """max_batch: conversations decoded at once, fewer where their keys and values would outgrow cache_bytes.

        ConfigError where model and tokenizer do not fit.
        """
        if tokenizer.vocab_size > model.config.vocab_size:
            raise ConfigError(
                f"the tokenizer has {tokenizer.vocab_size:,} ids and the model {model.config.vocab_size:,}; "
                "they are not from the same run"
            )
        self.model = model
        self.tokenizer = tokenizer
        self.form = form
        self.toolbox = toolbox
        self.max_batch = max_batch
        self.cache_bytes = cache_bytes
        self._constraints: Constraints | None = None

    def generate(
        self, requests: Sequence[Request], on_reply: Callable[[int, Reply], None] | None = None
    ) -> list[Reply]:
        """Answer all requests, in their order; `on_reply(index, reply)` is called as each one ends.

        Answers do not depend on what else is asked for, up to rounding: each request has a random stream of
        its own. PromptTooLongError where a conversation fills the context. Under a constraint: MissingPackageError
        without llguidance, ConfigError where a declared tool's schema cannot be enforced.
        """
        turns = [self._turn(request) for request in requests]
        index_of = {id(turn): index for index, turn in enumerate(turns)}
        replies: dict[int, Reply] = {}
        groups = [(0, list(range(len(turns))))]
        if self.model.config.attends_to_all_alone:
            groups = prefix_groups([turn.prompt_ids for turn in turns])
        for prefix_length, members in groups:
            group = [turns[index] for index in members]
            for turn in self._run(group, group[0].prompt_ids[:prefix_length]):
                index = index_of[id(turn)]
                replies[index] = turns[index].reply()
                if on_reply is not None:
                    on_reply(index, replies[index])
        return [replies[index] for index in range(len(turns))]

    def _run(self, turns: Sequence[Turn], prefix_ids: Sequence[int]) -> Iterator[TokenStream]:
        """Decode turns whose prompts all begin with `prefix_ids`; hands out each as it ends."""
        # Longest first, so that neighbours in the cache are about equally long.
        waiting = sorted(turns, key=lambda turn: len(turn.prompt_ids))
        batch = self._batch(min(self._most_slots(turns, len(prefix_ids)), len(turns)), prefix_ids)
        join_at = max(1, batch.num_slots // _JOIN_SHARE)
        while waiting or batch.num_live:
            if waiting and (batch.num_free >= join_at or not batch.num_live):
                yield from batch.join([waiting.pop() for _ in range(min(batch.num_free, len(waiting)))])
            yield from batch.step()

    def stream(self, request: Request) -> Iterator[StreamEvent]:
        """Answer one request as typed events, `Done` last. Text never cuts a character; close it to stop."""
        turn = self._turn(request, listen=True)
        batch = self._batch(1)
        batch.join([turn])
        yield from turn.take_events()
        while not turn.finished:
            batch.step()
            yield from turn.take_events()

    def check(self, request: Request) -> None:
        """What `generate` would raise for this request, before anything is generated."""
        self._turn(request)

    def _most_slots(self, turns: Sequence[Turn], prefix_length: int) -> int:
        """How many slots keep to max_batch and cache_bytes, if every slot grew to the longest turn; at least 1."""
        model = self.model
        longest = min(model.config.context, max(turn.most_tokens for turn in turns)) - prefix_length
        slot_bytes = longest * kv_bytes_per_token(model.config, model.compute_dtype.itemsize)
        return max(1, min(self.max_batch, self.cache_bytes // slot_bytes))

    def _batch(self, num_slots: int, prefix_ids: Sequence[int] = ()) -> DecodeBatch:
        return DecodeBatch(self.model, num_slots, self.tokenizer.vocab_size, prefix_ids)

    def _turn(self, request: Request, listen: bool = False) -> Turn:
        if request.constrain is not None and self._constraints is None:
            self._constraints = Constraints(self.form)
        turn = Turn(
            request,
            self.form,
            self.toolbox,
            self.model.config.context,
            listen=listen,
            constraints=self._constraints,
        )
        if request.constrain is not None and self._constraints is not None:
            self._constraints.check(turn.tools)
        return turn
