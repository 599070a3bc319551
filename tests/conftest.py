"""Fixtures that several rooms share. Rooms without torch must not wait for it: it is imported inside."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from gradus.conversation.messages import Conversation, Message, ToolCall
from gradus.tools.toolbox import ToolBox

sys.path.insert(0, str(Path(__file__).parent))  # for the modules beside this one

# The machine may be busy with other things: no property fails for the time that it takes.
settings.register_profile("no clock", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("no clock")

from warm_start import WarmStart  # noqa: E402

if TYPE_CHECKING:
    from gradus.engine.engine import Engine
    from gradus.model.batch import Batch


def calculator_call(number: int, expression: str) -> ToolCall:
    return ToolCall(f"call_{number}", "calculator", {"expression": expression})


def memorised_conversations() -> dict[str, Conversation]:
    """What the `memorised` engine knows by heart, by a short name."""
    tools = ToolBox().schemas(["calculator"])

    def user(text: str) -> Message:
        return Message("user", text)

    def result(number: int, text: str) -> Message:
        return Message("tool", text, tool_call_id=f"call_{number}")

    def calls(*made: ToolCall, thinking: str | None = None, text: str = "") -> Message:
        return Message("assistant", text, thinking, tuple(made))

    def says(text: str, thinking: str | None = None) -> Message:
        return Message("assistant", text, thinking)

    return {
        "product": Conversation(
            (
                user("what is 12 * 3?"),
                calls(calculator_call(1, "12 * 3"), thinking="The calculator knows 12 * 3."),
                result(1, "36"),
                says("12 * 3 = 36."),
            ),
            tools,
            think=True,
        ),
        "greeting": Conversation((user("hello"), says("Hello! How are you?", "")), think=False),
        "coffee": Conversation((user("coffee?"), says("café ☕ déjà vu", "I think of ☕ first."))),
        "two": Conversation(
            (
                user("two sums"),
                calls(calculator_call(1, "1 + 1"), calculator_call(2, "2 + 2"), text="Both:"),
                result(1, "2"),
                result(2, "4"),
                calls(calculator_call(3, "2 * 4")),
                result(3, "8"),
                says("They are 2 and 4, 8 together."),
            ),
            tools,
        ),
        "name": Conversation((user("I am Ada"), says("Hello Ada."), user("who am I?"), says("You are Ada."))),
    }


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For products as small as in most tests, two threads are slower than one."""
    import torch

    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture(scope="session")
def warm() -> Iterator[WarmStart]:
    """Starts processes that need not import torch."""
    found = WarmStart()
    yield found
    found.close()


@pytest.fixture(scope="session")
def sandboxed() -> None:
    """Where no program can be run safely, tests that run some are skipped."""
    from gradus.core.errors import GradusError
    from gradus.tools.sandbox import require_sandbox

    try:
        require_sandbox()
    except GradusError as error:
        pytest.skip(f"no sandbox on this machine: {error}")


@pytest.fixture(scope="session")
def memorised() -> tuple[Engine, dict[str, Conversation]]:
    """A small engine that has learned a handful of conversations by heart, and those conversations."""
    import torch

    from gradus.conversation.formats.hermes import HermesFormat
    from gradus.engine.engine import Engine
    from gradus.model.config import model_config
    from gradus.model.transformer import build_model
    from gradus.tokenizer.training import train_tokenizer
    from gradus.train.losses import next_token_loss

    conversations = memorised_conversations()
    texts = [message.content + " 0123456789" for c in conversations.values() for message in c.messages]
    tokenizer = train_tokenizer(texts * 3, vocab_size=300)
    form = HermesFormat(tokenizer)
    batch = conversation_batch(form, list(conversations.values()))
    table = {"depth": 2, "width": 64, "num_heads": 2, "num_kv_heads": 1, "head_dim": 32}
    model = build_model(model_config(table, 320, 512), torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for _ in range(90):
        total, count, _ = next_token_loss(model, batch)
        optimizer.zero_grad()
        (total / count).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    torch.set_num_threads(num_threads)
    assert float(total.detach() / count) < 0.002
    return Engine(model, tokenizer, form, ToolBox(), max_batch=4), conversations


def conversation_batch(form: object, conversations: list[Conversation]) -> Batch:
    """All conversations end to end, targets where they are trained."""
    import numpy as np
    import torch

    from gradus.model.batch import IGNORE, Batch, Documents

    rows = form.render_many(conversations)  # type: ignore[attr-defined]
    ids = torch.from_numpy(np.concatenate([row.ids for row in rows]).astype(np.int64))
    trained = [np.append(row.mask[1:], False) for row in rows]
    targets = torch.where(torch.from_numpy(np.concatenate(trained)), ids.roll(-1), IGNORE)
    return Batch(ids, targets, Documents.of_lengths([len(row.ids) for row in rows]))


@pytest.fixture(autouse=True, scope="session")
def _no_memory_of_this_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests, and what they start, neither see nor leave caches and evaluation sets of the user."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADUS_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("GRADUS_BENCHMARKS", raising=False)
        yield
