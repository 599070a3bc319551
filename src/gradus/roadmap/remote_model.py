"""What the stages that ask a remote model share: their files, plans, documents to search in, results and figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradus.core.errors import DataError
from gradus.core.quantity import format_count
from gradus.core.settings import KeyPath, Problem
from gradus.data.files import FilesSource
from gradus.data.sources import source_digest
from gradus.roadmap.place import Place
from gradus.roadmap.sources import file_sources
from gradus.roadmap.stage import SourceError
from gradus.tools.endpoint_settings import EndpointSettings

if TYPE_CHECKING:
    from gradus.tools.answers import Spent
    from gradus.tools.endpoint import Endpoint
    from gradus.tools.search_index import SearchIndex

REJECTED = "rejected.jsonl"  # in the artifact: what was not taken, with its reason and the remote model's words
_INDEX = "documents.index"  # in scratch
# How fast a service is taken to be, for plans.
_FIRST_TOKEN_SECONDS, _TOKENS_PER_SECOND = 1.0, 60.0


def read_sources(
    files: list[tuple[KeyPath, str]], documents: str | None, roadmap_dir: Path
) -> tuple[dict[str, str], list[Problem]]:
    """Digests of files by their keys and of a folder of documents, and what is wrong with them."""
    found: dict[str, str] = {}
    problems: list[Problem] = []
    try:
        found = file_sources(files, roadmap_dir)
    except SourceError as error:
        problems += error.problems
    if documents is not None:
        try:
            found[documents] = source_digest(FilesSource(path=documents), roadmap_dir)
        except DataError as error:
            problems.append(Problem(("documents",), str(error)))
    return found, problems


def asking_seconds(teacher: EndpointSettings, requests: float, output_tokens: float) -> float:
    """Time for requests to a service, by an assumed speed."""
    return (requests * _FIRST_TOKEN_SECONDS + output_tokens / _TOKENS_PER_SECOND) / teacher.concurrency


def asking_note(teacher: EndpointSettings, requests: float, input_tokens: float, output_tokens: float) -> str:
    """What will be asked of a service and what it will cost, in words."""
    money = teacher.price(input_tokens, output_tokens)
    if money is None:
        cost = "; money unknown, since teacher.input_price and teacher.output_price are not set"
    else:
        cost = f", money {money:,.2f}"
        if teacher.budget is not None and money > teacher.budget:
            cost += f"; more than the budget of {teacher.budget:,.2f}, at which it will stop"
    return (
        f"about {format_count(round(requests))} requests to {teacher.model}, "
        f"{format_count(round(input_tokens))} tokens in and {format_count(round(output_tokens))} out{cost}"
    )


def documents_index(documents: str, place: Place) -> SearchIndex:
    """The user's documents made searchable, in scratch. Errors: DataError where none has text."""
    from gradus.data.drops import DropLog
    from gradus.data.titled_texts import titled_texts
    from gradus.tools.search_index import SearchIndex, build_index

    drops = DropLog()
    facts = build_index(place.scratch / _INDEX, titled_texts(documents, place.roadmap_dir, drops))
    if not facts.passages:
        raise DataError(f'"{documents}": no document has text (dropped {drops.summary()})')
    place.progress.line(f"  {facts.documents:,} documents in {facts.passages:,} passages; dropped {drops.summary()}")
    return SearchIndex(place.scratch / _INDEX)


def asked_results(endpoint: Endpoint, spent: Spent) -> dict[str, Any]:
    """What an artifact tells of the service that was asked."""
    traffic = endpoint.traffic
    return {
        "teacher": endpoint.settings.model,
        "fees": spent.money,
        "unsettled_fees": spent.unsettled,
        "requests": spent.requests,
        "input_tokens": spent.input_tokens,
        "output_tokens": spent.output_tokens,
        "reused_answers": traffic.reused,
        "uncounted_answers": traffic.usage.estimated,
        "endpoint_faults": dict(traffic.faults),
    }


def asked_info(endpoint: Endpoint, rejected: int, seconds: float) -> str:
    """The figures beside a bar: money, rejects, rate."""
    traffic = endpoint.traffic
    money = f"money {endpoint.spent:,.2f}, " if endpoint.settings.input_price is not None else ""
    reused = f", {traffic.reused:,} reused" if traffic.reused else ""
    return f"{money}{rejected:,} rejected, {traffic.answered / max(1e-3, seconds):.1f} answers/s{reused}"
