"""The engine: answers conversations, many at once or one as a stream, and runs the calculator in the loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from gradus.conversation.formats.wire import Format
from gradus.conversation.messages import JsonObject
from gradus.core.errors import ConfigError, GenerationError
from gradus.engine.batching import DecodeBatch, Decoder
from gradus.engine.constraint import Constraints
from gradus.engine.decoding import CACHE_BYTES, MAX_BATCH, decode_streams
from gradus.engine.turn import Reply, Request, StreamEvent, Turn
from gradus.model.cost import parameters
from gradus.model.transformer import Transformer
from gradus.tokenizer.tokenizer import Tokenizer
from gradus.tools.toolbox import ToolBox


class Engine:
    """A model with its tokenizer, conversation format and tools."""

    def __init__(
        self,
        decoder: Decoder,
        tokenizer: Tokenizer,
        form: Format,
        toolbox: ToolBox,
        max_batch: int = MAX_BATCH,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        """decoder: the model, as who computes it has it. max_batch: conversations decoded at once, fewer where their
        keys and values would outgrow cache_bytes.

        ConfigError where model and tokenizer do not fit.
        """
        if tokenizer.vocab_size > decoder.config.vocab_size:
            raise ConfigError(
                f"the tokenizer has {tokenizer.vocab_size:,} ids and the model {decoder.config.vocab_size:,}; "
                "they are not from the same run"
            )
        self.decoder = decoder
        self.tokenizer = tokenizer
        self.form = form
        self.toolbox = toolbox
        self.max_batch = max_batch
        self.cache_bytes = cache_bytes
        self._constraints: Constraints | None = None

    @property
    def model(self) -> Transformer:
        """The model itself, for whoever reads texts with it. Errors: GenerationError where another program has it."""
        if not isinstance(self.decoder, Transformer):
            raise GenerationError(
                "llama.cpp answers, and does not score texts here (log-likelihoods, bits per byte, training): "
                "use the backend torch for that"
            )
        return self.decoder

    @property
    def context(self) -> int:
        """Tokens that prompt and answer may have together."""
        return self.decoder.config.context

    @property
    def num_parameters(self) -> int:
        """Of the model, all of them."""
        model = self.decoder
        return parameters(model.config).total if isinstance(model, Transformer) else model.config.num_parameters

    def generate(
        self, requests: Sequence[Request], on_reply: Callable[[int, Reply], None] | None = None
    ) -> list[Reply]:
        """Answer all requests, in their order; `on_reply(index, reply)` is called as each one ends.

        Answers do not depend on what else is asked for, up to rounding: each request has a random stream of
        its own. PromptTooLongError where a conversation fills the context. Under a constraint: MissingPackageError
        without llguidance, ConfigError where the schema of a tool or of the answer cannot be enforced.
        """
        turns = [self.open_turn(request, listen=False) for request in requests]
        index_of = {id(turn): index for index, turn in enumerate(turns)}
        replies: dict[int, Reply] = {}
        for turn in decode_streams(
            self.decoder, turns, self.tokenizer.vocab_size, max_batch=self.max_batch, cache_bytes=self.cache_bytes
        ):
            index = index_of[id(turn)]
            replies[index] = turns[index].reply()
            if on_reply is not None:
                on_reply(index, replies[index])
        return [replies[index] for index in range(len(turns))]

    def stream(self, request: Request) -> Iterator[StreamEvent]:
        """Answer one request as typed events, `Done` last. Text never cuts a character; close it to stop."""
        turn = self.open_turn(request)
        batch = DecodeBatch(self.decoder, 1, self.tokenizer.vocab_size)
        batch.join([turn])
        yield from turn.take_events()
        while not turn.finished:
            batch.step()
            yield from turn.take_events()

    def check(self, request: Request) -> None:
        """What `generate` would raise for this request, before anything is generated."""
        self.open_turn(request, listen=False)

    def check_answer(self, schema: JsonObject) -> None:
        """ConfigError where answers cannot be held to this JSON schema; MissingPackageError without llguidance."""
        self._shared_constraints().check((), schema)

    def open_turn(self, request: Request, *, listen: bool = True, on_results: Callable[[], None] | None = None) -> Turn:
        """The turn that answers a request, for who decodes it. Raises as `generate` does.

        listen: it keeps events. on_results: it does not block while calls are under way, and this is called when they
        are over.
        """
        constraints = self._shared_constraints() if request.held_to is not None else None
        if constraints is not None:
            constraints.check((), request.answer_schema)
        turn = Turn(
            request,
            self.form,
            self.toolbox,
            self.context,
            listen=listen,
            on_results=on_results,
            constraints=constraints,
        )
        if constraints is not None:
            constraints.check(turn.callable_tools)
        return turn

    def _shared_constraints(self) -> Constraints:
        self._constraints = self._constraints or Constraints(self.form)
        return self._constraints
