"""The sft stage on pools whose conversations are longer than the model's context."""

import json

import pytest
from small_stages import PROSE, SFT, TALK, base_of, tokens_of, write_chats, write_lines

from gradus.data.pool import read_pool
from gradus.roadmap.progress import QuietProgress
from gradus.roadmap.run import walk
from gradus.roadmap.schema import load_roadmap

TALK_HELD_BACK = TALK.replace("fraction = 0.1", "fraction = 0.3")
CHAT = SFT + "batch_tokens = 256\nevaluate_every = 2\n"
ROADMAP = PROSE + TALK_HELD_BACK + tokens_of(280) + base_of(2) + CHAT


@pytest.fixture
def train(tmp_path):
    """Walk the roadmap over these questions, each answered "Yes."."""
    write_lines(tmp_path, 200)
    (tmp_path / "chats.toml").write_text(ROADMAP)

    def walked(questions):
        write_chats(tmp_path, [(question, "Yes.") for question in questions])
        return walk(load_roadmap(tmp_path / "chats.toml"), tmp_path, QuietProgress()).artifacts

    return walked


SHORT = [f"Is it {i}?" for i in range(30)]
LONG = [f"Is it {i}?" + " And then?" * 60 for i in range(30)]


def sampled_prompts(artifact):
    lines = [json.loads(line) for line in (artifact.path / "samples.jsonl").read_text().splitlines()]
    return {line["prompt"] for line in lines}


def test_held_back_questions_that_fill_the_context_are_not_asked(train):
    prompts = sampled_prompts(train(SHORT + LONG)["chat"])
    assert prompts
    assert prompts <= set(SHORT)


def test_training_goes_on_where_every_held_back_conversation_is_too_long(train):
    pool = train(SHORT + LONG)["talk"]
    held_back = {row.messages[0].content for row in read_pool(pool.path, "validation")}
    kept = [question for question in SHORT + LONG if question in LONG or question not in held_back]
    chat = train(kept)["chat"]
    assert not sampled_prompts(chat)
    events = [json.loads(line) for line in (chat.path / "metrics.jsonl").read_text().splitlines()]
    assert any(event["event"] == "train" for event in events)
    assert not any("validation_loss" in event for event in events)
