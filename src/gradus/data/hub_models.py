"""Models and tokenizers of the Hugging Face Hub, pinned: "hub:owner/name" means the commit that it has when first read.

What a stage takes from the Hub is part of its fingerprint as that commit, and the record of a walk keeps it, so that
the same roadmap walked again in its home reads the same, whatever has been pushed there since.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from gradus.core.errors import DataError
from gradus.data.hub import (
    LISTING_FAILURES,
    hub_connection,
    hub_endpoint,
    hub_refusal,
    is_commit,
    is_offline,
    resolved_commit,
)

HUB_NAME = r"hub:(?P<repo>[^@\s]+/[^@\s]+)(?:@(?P<revision>\S+))?"


def pinned_commit(take: str, before: Mapping[str, str]) -> dict[str, str]:
    """{take: commit} for "hub:owner/name" or "hub:owner/name@branch"; {} for what is pinned by itself.

    before: what an earlier walk read by the same settings; its commit counts. Errors: DataError with what to do.
    """
    found = re.fullmatch(HUB_NAME, take)
    if found is None or is_commit(found["revision"] or ""):
        return {}
    return {take: before.get(take) or _asked(found["repo"], found["revision"] or "main", take)}


def commit_of(take: str, sources: Mapping[str, str]) -> tuple[str, str]:
    """(repository, commit) of a name, by the sources of its stage."""
    found = re.fullmatch(HUB_NAME, take)
    assert found is not None
    return found["repo"], sources.get(take) or found["revision"]


def _asked(repo: str, revision: str, take: str) -> str:
    from gradus.data.transfer import StatusError, UnreachableError

    where = f"Hub model {repo}" + ("" if revision == "main" else f"@{revision}")
    fix = f"connect once, or name the commit: {take.partition('@')[0]}@COMMIT"
    if is_offline():
        raise DataError(f"{where}: HF_HUB_OFFLINE is set and its commit is not known yet; {fix}")
    try:
        with hub_connection(LISTING_FAILURES) as connection:
            return resolved_commit(connection, f"{hub_endpoint()}/api/models/{repo}", revision, where)
    except UnreachableError as error:
        raise DataError(f"{error}; {fix}") from None
    except StatusError as error:
        raise hub_refusal(error, repo, where, "model") from None
