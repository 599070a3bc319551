"""What rows are drawn from: banks of topics, the user's documents, the persona sheet; and the tools that are run."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files

from gradus.conversation.messages import Message, ToolCall, ToolSchema
from gradus.data.synthetic.grammar import Grammar
from gradus.posttrain.synthesis.teacher import Rejected
from gradus.tools.running import is_error
from gradus.tools.search_index import Hit, SearchIndex
from gradus.tools.toolbox import ToolBox
from gradus.tools.web_search import WEB_SEARCH

LEAST_PASSAGE = 200  # characters; shorter ones are headings and the like
LEAST_LETTERS = 0.7  # of the characters, spaces among them; tables and code have fewer
_DRAWS = 40
_STAND_IN = "A passage of the documents, as long as most are. " * 17


@cache
def banks() -> Grammar:
    """All banks of topics, compiled once per process."""
    folder = files("gradus.posttrain.synthesis").joinpath("banks")
    return Grammar({entry.name: entry.read_text(encoding="utf-8") for entry in sorted(folder.iterdir(), key=str)})


@dataclass(frozen=True)
class Material:
    """index: of the user's documents; None where there are none, or for a plan, which draws a text like them.

    persona: the sheet of who the assistant is.
    """

    toolbox: ToolBox = field(default_factory=ToolBox)
    index: SearchIndex | None = None
    num_passages: int = 0
    persona: str = ""

    def passage(self, rng: random.Random) -> Hit:
        """A passage of the documents of prose. Errors: Rejected where there is none."""
        if self.index is None:
            return Hit("Title", "file.md", _STAND_IN, 0)
        for _ in range(_DRAWS):
            hit = self.index.passage(1 + rng.randrange(self.num_passages))
            prose = sum(c.isalpha() or c == " " for c in hit.text) >= LEAST_LETTERS * len(hit.text)
            if prose and len(hit.text) >= LEAST_PASSAGE:
                return hit
        raise Rejected("no_prose", f"no passage with {LEAST_PASSAGE} characters of prose in {_DRAWS} draws")

    def tools(self) -> tuple[ToolSchema, ...]:
        """Every tool that a row may declare."""
        return self.toolbox.schemas(self.toolbox.names)

    def searches(self) -> bool:
        return WEB_SEARCH.name in self.toolbox.names

    def run(self, name: str, argument: str, value: str) -> tuple[ToolCall, Message]:
        """A call of one of our own tools, and its result. Errors: Rejected where the tool cannot answer."""
        call = ToolCall("call_1", name, {argument: value})
        result = self.toolbox.run(call)
        if is_error(result):
            raise Rejected("tool_error", result.content, value)
        return call, result


def asking(rng: random.Random) -> str:
    """Who asks, and how the message is worded."""
    bank = banks()
    return f"The user is {bank.text('person', rng)}. The user's message is {bank.text('manner', rng)}."
