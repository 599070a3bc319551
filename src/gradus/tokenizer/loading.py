"""Tokenizers from a folder or from the Hub."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from gradus.core.errors import ArtifactError
from gradus.tokenizer.tokenizer import CONFIG_FILE, TOKENIZER_FILE, Tokenizer


def load_tokenizer(folder: Path | str, special_tokens: Sequence[str] = ()) -> Tokenizer:
    """The tokenizer of a folder that holds a tokenizer.json (ours, or any byte-level BPE of the Hub).

    special_tokens: control tokens to append where it lacks them. ArtifactError where there is none to load.
    """
    path = Path(folder) / TOKENIZER_FILE
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ArtifactError(f"{folder}: no {TOKENIZER_FILE}; expected a folder with a saved tokenizer") from error
    try:
        return Tokenizer(text).extended(special_tokens)
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path}: not a readable tokenizer.json ({error})") from error


def load_tokenizer_from_hub(
    repo: str, revision: str | None = None, special_tokens: Sequence[str] = (), token: str | None = None
) -> Tokenizer:
    """The tokenizer of a Hub repository, through the local cache; HF_ENDPOINT chooses another server.

    revision: branch, tag or commit. ArtifactError says what is missing and what to do.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    where = f"Hub repository {repo}" + (f"@{revision}" if revision else "")
    try:
        path = hf_hub_download(repo, TOKENIZER_FILE, revision=revision, token=token)
    except LocalEntryNotFoundError as error:
        raise ArtifactError(
            f"{where}: not in the local cache and the Hub cannot be reached; connect once, or give a folder"
        ) from error
    except GatedRepoError as error:
        raise ArtifactError(f"{where}: access is restricted; accept its terms and set HF_TOKEN") from error
    except RevisionNotFoundError as error:
        raise ArtifactError(f"{where}: no such revision") from error
    except RepositoryNotFoundError as error:
        raise ArtifactError(f"{where}: no such repository (private ones need HF_TOKEN)") from error
    except EntryNotFoundError as error:
        raise ArtifactError(f"{where}: it has no {TOKENIZER_FILE}; only fast tokenizers can be taken") from error
    except HFValidationError as error:
        raise ArtifactError(f"{where}: not a repository name: {error}") from error
    except (HfHubHTTPError, OSError) as error:
        raise ArtifactError(f"{where}: download failed: {error}") from error
    return load_tokenizer(Path(path).parent, special_tokens)


def saved_chat_template(folder: Path | str) -> str | None:
    """The chat template kept beside a tokenizer, if any. ArtifactError where the file that would hold it is damaged."""
    separate = Path(folder) / "chat_template.jinja"
    if separate.exists():
        return separate.read_text(encoding="utf-8")
    config = Path(folder) / CONFIG_FILE
    if not config.exists():
        return None
    try:
        template = json.loads(config.read_text(encoding="utf-8")).get("chat_template")
    except (ValueError, AttributeError) as error:
        raise ArtifactError(f"{config}: expected a JSON object ({error})") from error
    return template if isinstance(template, str) else None
