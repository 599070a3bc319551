"""The engine: answers conversations, many at once or one as a stream, and runs the calculator in the loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from gradus.conversation.formats.wire import Format
from gradus.core.errors import ConfigError
from gradus.engine.batching import DecodeBatch
from gradus.engine.constraint import Constraints
from gradus.engine.decoding import CACHE_BYTES, MAX_BATCH, decode_streams
from gradus.engine.turn import Reply, Request, StreamEvent, Turn
from gradus.model.transformer import Transformer
from gradus.tokenizer.tokenizer import Tokenizer
from gradus.tools.toolbox import ToolBox


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
        turns = [self.open_turn(request, listen=False) for request in requests]
        index_of = {id(turn): index for index, turn in enumerate(turns)}
        replies: dict[int, Reply] = {}
        for turn in decode_streams(
            self.model, turns, self.tokenizer.vocab_size, max_batch=self.max_batch, cache_bytes=self.cache_bytes
        ):
            index = index_of[id(turn)]
            replies[index] = turns[index].reply()
            if on_reply is not None:
                on_reply(index, replies[index])
        return [replies[index] for index in range(len(turns))]

    def stream(self, request: Request) -> Iterator[StreamEvent]:
        """Answer one request as typed events, `Done` last. Text never cuts a character; close it to stop."""
        turn = self.open_turn(request)
        batch = DecodeBatch(self.model, 1, self.tokenizer.vocab_size)
        batch.join([turn])
        yield from turn.take_events()
        while not turn.finished:
            batch.step()
            yield from turn.take_events()

    def check(self, request: Request) -> None:
        """What `generate` would raise for this request, before anything is generated."""
        self.open_turn(request, listen=False)

    def open_turn(self, request: Request, *, listen: bool = True, on_results: Callable[[], None] | None = None) -> Turn:
        """The turn that answers a request, for who decodes it. Raises as `generate` does.

        listen: it keeps events. on_results: it does not block while calls are under way, and this is called when they
        are over.
        """
        if request.constrain is not None and self._constraints is None:
            self._constraints = Constraints(self.form)
        turn = Turn(
            request,
            self.form,
            self.toolbox,
            self.model.config.context,
            listen=listen,
            on_results=on_results,
            constraints=self._constraints,
        )
        if request.constrain is not None and self._constraints is not None:
            self._constraints.check(turn.tools)
        return turn
