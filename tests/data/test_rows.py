"""Rendered rows: the renderer's own ids and mask, length policies that leave whole conversations."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradus.conversation.formats.hermes import HermesFormat
from gradus.conversation.messages import Conversation, Message, Pair, ToolCall, ToolSchema
from gradus.conversation.records import import_records
from gradus.conversation.validate import violations
from gradus.data.length_policy import LengthPolicy, fit_conversation
from gradus.data.rows import render_pairs, render_pool
from gradus.tokenizer.specials import IM_END
from gradus.tokenizer.tokenizer import Tokenizer

CALCULATOR = ToolSchema("calculator", "", {"type": "object", "properties": {"expression": {"type": "string"}}})


@pytest.fixture(scope="session")
def hermes(tokenizer: Tokenizer) -> HermesFormat:
    return HermesFormat(tokenizer)


def turn(question: str, answer: str, thinking: str | None = None) -> tuple[Message, ...]:
    return Message("user", question), Message("assistant", answer, reasoning_content=thinking)


def tool_turn(number: int, answer: str) -> tuple[Message, ...]:
    call = ToolCall(f"call_{number}", "calculator", {"expression": f"{number} + {number}"})
    return (
        Message("user", f"double {number}"),
        Message("assistant", reasoning_content="add", tool_calls=(call,)),
        Message("tool", str(2 * number), tool_call_id=call.id),
        Message("assistant", answer),
    )


def test_a_pool_becomes_documents_with_the_renderers_ids_and_mask(tmp_path: Path, hermes: HermesFormat) -> None:
    rows = [
        Conversation(turn("the cat?", "sat", "a mat"), source="a"),
        Conversation((Message("system", "brief"), *tool_turn(3, "6")), (CALCULATOR,), source="b"),
    ]
    store, counts = render_pool(rows, hermes, tmp_path, split="train", row_length=400)
    for index, row in enumerate(rows):
        rendered = hermes.render(row)
        length = np.array([len(rendered.ids)])
        pieces = store.pieces(np.array([index]), np.array([0]), length)
        assert pieces.tokens.tolist() == rendered.ids.tolist()
        assert pieces.trained.tolist() == [*rendered.mask[1:].tolist(), False]
        assert pieces.targets[pieces.trained].tolist() == rendered.ids[1:][rendered.mask[1:]].tolist()
    masks = [int(hermes.render(row).mask.sum()) for row in rows]
    assert counts["trained_tokens"] == sum(masks)
    assert counts["documents"] == counts["conversations"] == 2
    assert counts["by_source"]["a"]["tokens"] == len(hermes.render(rows[0]).ids)
    assert (counts["too_long"], counts["dropped"]) == (0, {})


def test_drop_leaves_out_what_is_too_long(tmp_path: Path, hermes: HermesFormat) -> None:
    rows = [Conversation(turn("hi", "the cat " * 40), id="long"), Conversation(turn("hi", "cat"))]
    store, counts = render_pool(rows, hermes, tmp_path, split="train", row_length=60)
    assert store.num_documents == 1
    assert (counts["too_long"], counts["dropped"]) == (1, {"too_long": 1})
    assert "more than the row's 60" in (tmp_path / "train.drops.json").read_text()


def test_split_repeats_the_system_message_and_loses_only_turns_that_never_fit(
    tmp_path: Path, hermes: HermesFormat
) -> None:
    system = Message("system", "brief")
    turns = [turn(f"q{i}", "the cat sat " * (60 if i == 2 else 2)) for i in range(6)]
    row = Conversation((system, *(m for t in turns for m in t)), source="s")
    length = len(hermes.render(Conversation((system, *turns[0], *turns[1]))).ids)
    parts = fit_conversation(row, length, "split", lambda c: len(hermes.render(c).ids))
    assert [[m.content for m in p.messages if m.role == "user"] for p in parts] == [
        ["q0", "q1"],
        ["q3", "q4"],
        ["q5"],
    ]
    assert all(p.messages[0] == system for p in parts)
    store, counts = render_pool([row], hermes, tmp_path, split="train", row_length=length, length_policy="split")
    assert store.num_documents == 3
    assert (counts["split"], counts["lost_turns"], counts["dropped"]) == (1, 1, {})


def test_truncate_cuts_the_answer_at_a_word_and_keeps_the_stop_token(tmp_path: Path, hermes: HermesFormat) -> None:
    row = Conversation(turn("hi", "the cat sat on the mat " * 20, thinking="short"))
    store, counts = render_pool([row], hermes, tmp_path, split="train", row_length=80, length_policy="truncate")
    ids = store.ids(0)
    assert 60 < len(ids) <= 80
    assert counts["truncated"] == 1
    message = hermes.parse(ids[hermes.render_prompt(Conversation(row.messages[:1])).size :].tolist()).message
    assert message.reasoning_content == "short"
    assert row.messages[1].content.startswith(message.content + " ")
    trained = store.pieces(np.array([0]), np.array([0]), store.lengths).trained
    assert ids[1:][trained[:-1]][-1] == hermes.stop_ids[0]


def test_truncate_goes_back_to_the_last_answer_that_fits(hermes: HermesFormat) -> None:
    def measure(conversation: Conversation) -> int:
        return len(hermes.render(conversation).ids)

    # The second turn's call and result take more than what is left, so only the first turn can stay.
    row = Conversation((*turn("hi", "cat"), *tool_turn(7, "14")), (CALCULATOR,))
    room = measure(Conversation(row.messages[:2], row.tools)) + 10
    assert fit_conversation(row, room, "truncate", measure) == [replace(row, messages=row.messages[:2])]
    # Thinking that does not fit is never cut.
    row = Conversation(turn("hi", "cat", thinking="the mat " * 50))
    assert fit_conversation(row, 60, "truncate", measure) == []


messages = st.lists(
    st.tuples(st.sampled_from(["plain", "think", "tool"]), st.integers(0, 30), st.integers(1, 30)),
    min_size=1,
    max_size=5,
)


@given(messages, st.integers(20, 160), st.sampled_from(["drop", "split", "truncate"]), st.booleans())
def test_whatever_a_policy_keeps_fits_and_is_a_sound_conversation(
    hermes: HermesFormat, shape: list[tuple[str, int, int]], row_length: int, policy: str, system: bool
) -> None:
    parts: list[Message] = [Message("system", "the hat")] if system else []
    for number, (kind, asked, answered) in enumerate(shape):
        answer = "the rat ran " * answered
        if kind == "tool":
            parts += tool_turn(number, answer)
        else:
            parts += turn("what " * asked + "?", answer, "the mat" if kind == "think" else None)
    row = Conversation(tuple(parts), (CALCULATOR,))
    assert violations(row) == []
    kept = fit_conversation(row, row_length, policy, lambda c: len(hermes.render(c).ids))
    for part in kept:
        rendered = hermes.render(part)
        assert len(rendered.ids) <= row_length
        assert rendered.mask.any()
        assert violations(part) == []
        answers = sum(m.role == "assistant" and m.train for m in part.messages)
        assert np.count_nonzero(rendered.mask & np.isin(rendered.ids, hermes.stop_ids)) == answers
    if policy == "drop":
        assert kept == []


def test_a_row_without_anything_to_train_is_dropped(tmp_path: Path, hermes: HermesFormat) -> None:
    untrained = Conversation((Message("user", "hi"), Message("assistant", "cat", train=False)))
    store, counts = render_pool([untrained], hermes, tmp_path, split="train", row_length=100)
    assert store.num_documents == 0
    assert counts["dropped"] == {"nothing_trained": 1}


def test_pairs_become_neighbours_and_train_on_answers_only(tmp_path: Path, hermes: HermesFormat) -> None:
    prompt = Conversation((*turn("hi", "an earlier answer"), Message("user", "more?")), source="p")
    yes, no = (Message("assistant", "yes"),), (Message("assistant", "the cat"),)
    pairs = [
        Pair(prompt, yes, no, source="p"),
        Pair(prompt, yes, (Message("assistant", " yes "),)),
        Pair(prompt, yes, (Message("assistant", "rat " * 100),)),
        Pair(prompt, no, yes, source="p"),
    ]
    store, counts = render_pairs(pairs, hermes, tmp_path, split="train", row_length=90)
    assert (counts["pairs"], counts["kept_pairs"]) == (4, 2)
    assert counts["dropped"] == {"same_answers": 1, "too_long": 1}
    documents = [store.ids(i).tolist() for i in range(4)]
    assert documents[0] == documents[3] != documents[1] == documents[2]
    prefix = len(hermes.render_prompt(prompt))
    for index, answer in enumerate([yes, no, no, yes]):
        pieces = store.pieces(np.array([index]), np.array([0]), store.lengths[[index]])
        trained = pieces.targets[pieces.trained].tolist()
        assert trained == [*hermes.tokenizer.encode(answer[0].content), hermes.stop_ids[0]]
        assert not pieces.trained[: prefix - 1].any()


@pytest.mark.parametrize("policy", ["drop", "split", "truncate"])
def test_real_long_conversations_fit_and_end_with_a_trained_stop_token(
    policy: LengthPolicy, tmp_path: Path, hermes: HermesFormat, real_data: Path
) -> None:
    rows = [
        row
        for name in ("multiturn/oasst_en_100_tree.jsonl.gz", "tool_calls/reason_tool_use_demo_50.jsonl")
        for row in import_records(real_data / name)
        if isinstance(row, Conversation) and not violations(row)
    ][-120:]
    store, counts = render_pool(rows, hermes, tmp_path, split="train", row_length=400, length_policy=policy)
    stop = hermes.tokenizer.special(IM_END)
    assert counts["too_long"] > 10
    assert store.lengths.max() <= 400
    for shard in store.shards:
        for start, end in zip(shard.bounds[:-1], shard.bounds[1:], strict=True):
            trained = shard.tokens[start:end][shard.mask[start:end] == 1]
            assert trained[-1] == stop
    left_out = counts["dropped"].get("too_long", 0)
    if policy == "drop":
        assert left_out == counts["too_long"]
    else:
        assert left_out < counts["too_long"]
        assert counts["split" if policy == "split" else "truncated"] == counts["too_long"] - left_out
