"""Stages that ask some of a pool's rows hold those alone: a pool may be larger than memory."""

import weakref
from types import SimpleNamespace

import pytest

from gradus.conversation.messages import Conversation, Message
from gradus.data import pool
from gradus.roadmap.stages import distill_pairs, grpo
from gradus.tools.toolbox import ToolBox

ROWS = 8000


class Question(Message):
    __slots__ = ("__weakref__",)


@pytest.fixture
def most_alive(monkeypatch):
    """How many questions of a pool of ROWS were in memory together, at most."""
    alive, most = weakref.WeakSet(), [0]

    def read_pool(folder, split):
        for number in range(ROWS):
            asked = Question("user", f"{number}?")
            alive.add(asked)
            most[0] = max(most[0], len(alive))
            yield Conversation((asked, Message("assistant", f"{number}.")), id=str(number))

    monkeypatch.setattr(pool, "read_pool", read_pool)
    return lambda: most[0]


def test_prompts_for_a_teacher(most_alive):
    settings = SimpleNamespace(num_prompts=4, disjoint_from=())
    inputs = {"prompts": SimpleNamespace(path=None)}
    prompts, skipped = distill_pairs._prompts(settings, inputs, ToolBox(), SimpleNamespace(roadmap_dir=None))
    assert [prompt.conversation.id for prompt in prompts] == ["0", "2000", "4000", "6000"]
    assert not skipped
    assert most_alive() < 2200  # two batches: one is made while the one before still has its name


def test_tasks_for_reinforcement_learning(most_alive):
    entry = SimpleNamespace(source="talk", max_rows=4, think=None, tools=None)
    stage = SimpleNamespace(settings=SimpleNamespace(evaluate_prompts=2))
    inputs = SimpleNamespace(named=lambda _: SimpleNamespace(path=None))
    tasks = grpo._tasks(entry, stage, inputs, None, "train")
    assert [task.id for task in tasks] == ["0", "2000", "4000", "6000"]
    assert [task.id for task in grpo._tasks(entry, stage, inputs, None, "validation")] == ["0", "4000"]
    assert most_alive() < 100
