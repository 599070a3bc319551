"""The tool web_search: a query in, passages with their sources out, as JSON that is whole however long they are.

What is searched is behind one function, so that a service on the web can stand in for the index of one's own
documents. Results are data: markers in them stay text, and a search that fails is an error, never an empty success.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gradus.conversation.messages import ToolSchema
from gradus.core.errors import ToolError
from gradus.tools.deadline import Deadline
from gradus.tools.search_index import Hit, SearchIndex
from gradus.tools.toolbox import TOOLS, Tool, ToolBox

WEB_SEARCH = ToolSchema(
    "web_search",
    "Searches for a query and returns the passages that fit best, with title and address.",
    {
        "type": "object",
        "properties": {"query": {"type": "string", "description": "What to look for, in a few words."}},
        "required": ["query"],
    },
)
NUM_RESULTS = 4
MOST_CHARACTERS = 2400  # of all passages together
_MOST_TITLE_CHARACTERS, _MOST_ADDRESS_CHARACTERS = 120, 300
_MOST_QUERY_CHARACTERS = 400

Search = Callable[[str, int, Deadline], Sequence[Hit]]
"""From a query, a number of results and the time there is to hits, best first; ToolError where it fails."""


def web_search_tool(search: Search) -> Tool:
    """The tool over something that searches."""

    def answer(arguments: Mapping[str, Any], deadline: Deadline) -> str:
        query: str = arguments["query"]
        if not query.strip():
            raise ToolError("empty query")
        if len(query) > _MOST_QUERY_CHARACTERS:
            raise ToolError(f"query longer than {_MOST_QUERY_CHARACTERS} characters")
        return results_text(search(query, NUM_RESULTS, deadline))

    return Tool(WEB_SEARCH, answer)


def results_text(hits: Sequence[Hit], most_characters: int = MOST_CHARACTERS) -> str:
    """Hits as JSON: {"results": [{"number", "title", "url", "text"}]}; texts share the room evenly."""
    room = most_characters // max(1, len(hits))
    results = [
        {
            "number": number,
            "title": hit.title[:_MOST_TITLE_CHARACTERS],
            "url": cut_address(hit.url),
            "text": _shortened(hit.text, room),
        }
        for number, hit in enumerate(hits, start=1)
    ]
    return json.dumps({"results": results}, ensure_ascii=False)


def cut_address(url: str) -> str:
    """An address as results show it: its beginning, where a document has made it longer than a passage."""
    return url[:_MOST_ADDRESS_CHARACTERS]


def _shortened(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    at = text.rfind(" ", most // 2, most)
    return text[: at if at > 0 else most].rstrip() + " ..."


def search_in(index: SearchIndex) -> Search:
    """Search in an index, which bounds its own time."""
    return lambda query, limit, deadline: index.search(query, limit)


def search_toolbox(search: Search) -> ToolBox:
    """Every tool that is always there, and web_search."""
    return ToolBox({**TOOLS, WEB_SEARCH.name: web_search_tool(search)})
