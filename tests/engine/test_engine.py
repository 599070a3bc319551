"""The engine on a model that knows a few conversations by heart: calls, streams, batches."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gradus.conversation.formats.wire import CallReady, TextDelta, ThinkDelta
from gradus.conversation.messages import Conversation, Message
from gradus.core.errors import ArtifactError, ConfigError
from gradus.engine import decoding
from gradus.engine.batching import DecodeBatch
from gradus.engine.engine import Engine
from gradus.engine.load import load_engine, settled_precision
from gradus.engine.sampling import Sampling
from gradus.engine.turn import Done, PromptTooLongError, Request, StreamEvent, ToolResult
from gradus.model.config import model_config
from gradus.model.precision import DecodePrecision
from gradus.model.transformer import Transformer
from gradus.model.weights import config_text, save_model

pytestmark = pytest.mark.usefixtures("one_thread")

Memory = tuple[Engine, dict[str, Conversation]]


def question(conversation: Conversation, **options: object) -> Request:
    """The conversation up to its last user message."""
    last = max(i for i, message in enumerate(conversation.messages) if message.role == "user")
    return Request(replace(conversation, messages=conversation.messages[: last + 1]), **options)  # type: ignore[arg-type]


def answer_of(conversation: Conversation) -> tuple[Message, ...]:
    last = max(i for i, message in enumerate(conversation.messages) if message.role == "user")
    return conversation.messages[last + 1 :]


def test_it_says_what_it_learned_and_runs_its_calls_itself(memorised: Memory) -> None:
    engine, known = memorised
    replies = engine.generate([question(conversation) for conversation in known.values()])
    for conversation, reply in zip(known.values(), replies, strict=True):
        assert reply.turn.messages == answer_of(conversation)
        assert reply.finish_reason == "stop"
        assert reply.turn.problems == ()


def test_every_request_gets_the_same_answer_alone_and_in_a_batch(memorised: Memory) -> None:
    engine, known = memorised
    requests = [
        question(conversation, sampling=Sampling(temperature=heat, seed=seed), max_tokens=40)
        for seed, conversation in enumerate(known.values())
        for heat in (0.0, 1.0, 2.5)
    ]
    together = engine.generate(requests)
    alone = [engine.generate([request])[0] for request in requests]
    assert together == alone
    assert len({reply.turn.messages for reply in together}) > len(known)


def test_a_seed_repeats_itself_and_another_seed_does_not(memorised: Memory) -> None:
    engine, known = memorised
    hot = [question(known["name"], sampling=Sampling(temperature=3.0, seed=s), max_tokens=20) for s in (1, 1, 2)]
    first, again, other = engine.generate(hot)
    assert first == again
    assert first != other


def test_replies_are_reported_as_they_end(memorised: Memory) -> None:
    engine, known = memorised
    requests = [question(conversation) for conversation in known.values()]
    heard = {}
    replies = engine.generate(requests, heard.__setitem__)
    assert heard == dict(enumerate(replies))


def test_a_stream_tells_thinking_calls_results_and_text_apart(memorised: Memory) -> None:
    engine, known = memorised
    events = list(engine.stream(question(known["product"])))
    kinds = [type(event) for event in events]
    thinking = "".join(event.text for event in events if isinstance(event, ThinkDelta))
    text = "".join(event.text for event in events if isinstance(event, TextDelta))
    assert thinking == "The calculator knows 12 * 3."
    assert text == "12 * 3 = 36."
    call = next(event for event in events if isinstance(event, CallReady))
    assert call.call.arguments == {"expression": "12 * 3"}
    result = next(event for event in events if isinstance(event, ToolResult))
    assert result.message == Message("tool", "36", tool_call_id="call_1")
    assert kinds.index(ThinkDelta) < kinds.index(CallReady) < kinds.index(ToolResult) < kinds.index(TextDelta)
    assert isinstance(events[-1], Done)
    assert events[-1].reply == engine.generate([question(known["product"])])[0]


def test_streamed_text_never_cuts_a_character(memorised: Memory) -> None:
    engine, known = memorised
    pieces = [e.text for e in engine.stream(question(known["coffee"])) if isinstance(e, TextDelta | ThinkDelta)]
    assert "".join(pieces) == "I think of ☕ first.café ☕ déjà vu"
    assert not any("\ufffd" in piece for piece in pieces)


def test_a_stream_may_be_closed_early(memorised: Memory) -> None:
    engine, known = memorised
    stream = engine.stream(question(known["product"]))
    first: StreamEvent = next(stream)
    assert isinstance(first, ThinkDelta)
    stream.close()  # type: ignore[attr-defined]


def test_the_call_budget_ends_the_turn(memorised: Memory) -> None:
    engine, known = memorised
    reply = engine.generate([question(known["two"], max_calls=2)])[0]
    assert reply.finish_reason == "calls"
    assert [message.role for message in reply.turn.messages] == ["assistant", "tool", "tool", "assistant"]
    assert [call.id for call in reply.turn.calls] == ["call_1", "call_2", "call_3"]


def test_the_token_budget_counts_sampled_tokens_over_the_whole_turn(memorised: Memory) -> None:
    engine, known = memorised
    whole = engine.generate([question(known["product"])])[0]
    for budget in (1, 5, whole.num_tokens - 1, whole.num_tokens):
        reply = engine.generate([question(known["product"], max_tokens=budget)])[0]
        assert reply.num_tokens == budget
        assert reply.finish_reason == ("stop" if budget == whole.num_tokens else "length")


def test_a_turn_that_fills_the_context_ends_by_length(memorised: Memory) -> None:
    engine, _ = memorised
    words = Conversation((Message("user", "why " * 150),))
    reply = engine.generate([Request(words, sampling=Sampling(temperature=9.0), max_tokens=10_000)])[0]
    assert reply.num_prompt_tokens + reply.num_tokens <= engine.model.config.context + 1
    if reply.finish_reason == "stop":
        pytest.skip("the model stopped by chance")
    assert reply.finish_reason == "length"


def test_a_prompt_that_fills_the_context_is_refused_and_never_trimmed(memorised: Memory) -> None:
    engine, _ = memorised
    request = Request(Conversation((Message("user", "why " * 400),)))
    message = r"the prompt holds [\d,]+ tokens and the model's context is 512; shorten the conversation"
    with pytest.raises(PromptTooLongError, match=message):
        engine.generate([request])
    with pytest.raises(PromptTooLongError, match=message):
        engine.check(request)
    with pytest.raises(PromptTooLongError, match=message):
        next(engine.stream(request))
    described = "tokens with the description of a tool and the .* shorten the conversation, offer fewer tools or start"
    with pytest.raises(PromptTooLongError, match=described):
        engine.check(replace(request, tools=("calculator",)))


def test_a_damaged_model_of_a_walk_is_told_with_what_makes_it_anew(tmp_path: Path) -> None:
    artifact = tmp_path / "sft-1"
    (artifact / "model").mkdir(parents=True)
    (artifact / "model/tokenizer.json").write_text("[]")
    told = r"model/tokenizer\.json: not a readable tokenizer\.json \(.*\)"
    with pytest.raises(ArtifactError, match=told + "$"):
        load_engine(artifact / "model")
    (artifact / "manifest.json").write_text("{}")
    with pytest.raises(ArtifactError, match=told + f"; delete the folder {artifact} and run the roadmap again"):
        load_engine(artifact / "model")


def test_an_unknown_tool_is_an_error_that_names_the_nearest(memorised: Memory) -> None:
    engine, known = memorised
    with pytest.raises(ConfigError, match='unknown tool "calculater"; known are calculator; did you mean'):
        engine.generate([question(known["name"], tools=("calculater",))])


def test_a_small_cache_means_fewer_at_once_and_the_same_answers(
    memorised: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, known = memorised
    slots: list[int] = []

    def spy(model: Transformer, num_slots: int, vocab_size: int, prefix_ids: Sequence[int] = ()) -> DecodeBatch:
        slots.append(num_slots)
        return DecodeBatch(model, num_slots, vocab_size, prefix_ids)

    monkeypatch.setattr(decoding, "DecodeBatch", spy)
    requests = [question(conversation, max_tokens=60) for conversation in known.values()] * 2
    # A slot takes 512 positions x 2 layers x 1 head x 32 x keys and values x 4 bytes.
    tight = Engine(engine.model, engine.tokenizer, engine.form, engine.toolbox, cache_bytes=3 * 512 * 512)
    assert tight.generate(requests) == engine.generate(requests)
    assert max(slots[: len(slots) // 2]) == 3
    none = Engine(engine.model, engine.tokenizer, engine.form, engine.toolbox, cache_bytes=1)
    assert none.generate(requests[:2]) == engine.generate(requests[:2])


def test_nothing_to_do_is_done_at_once(memorised: Memory) -> None:
    engine, _ = memorised
    assert engine.generate([]) == []


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_narrow_weights_say_the_same_by_heart(memorised: Memory, precision: DecodePrecision, tmp_path: Path) -> None:
    engine, known = memorised
    save_model(tmp_path, engine.model)
    engine.tokenizer.save(tmp_path)
    narrow = load_engine(tmp_path, precision=precision)
    reply = narrow.generate([question(known["product"])])[0]
    assert reply.turn.messages == answer_of(known["product"])


def test_auto_is_what_the_machine_is_fastest_with_and_never_int8(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large, small = tmp_path / "large", tmp_path / "small"
    for folder, depth in ((large, 12), (small, 2)):
        folder.mkdir()
        config = model_config({"depth": depth, "width": 256, "head_dim": 64}, vocab_size=1000, context=64)
        (folder / "config.json").write_text(config_text(config, torch.float32))
    for can_pack, instructions, wanted in ((True, ["avx512_bf16"], "bf16"), (True, [], "fp32"), (False, [], "fp32")):
        monkeypatch.setattr("gradus.engine.load.packs_bf16", lambda can_pack=can_pack: can_pack)
        monkeypatch.setattr("gradus.engine.load.bf16_instructions", lambda found=instructions: found)
        assert settled_precision("auto", large) == wanted
        assert settled_precision("auto", small) == "fp32"
        assert settled_precision("int8", small) == "int8"
