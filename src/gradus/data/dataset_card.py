"""Which files of a Hub dataset a configuration and split mean: its card, else the names of its files.

Source: Hub documentation, "Manual Configuration" (the card's `configs:`) and "File names and splits".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import regex

from gradus.core.errors import DataError, did_you_mean
from gradus.data.file_formats import is_readable_name

_FRONT_MATTER = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.S)
# Names that mean a split, wherever in a path they stand between delimiters.
_SPLIT_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}


def card_patterns(where: str, card: str, config: str | None, split: str) -> tuple[str, ...] | None:
    """The patterns that a card's `configs:` gives for a configuration and split; None where it gives none at all.

    config: None takes the default one. Errors: DataError for a name the card does not have, with the nearest.
    """
    configs, default = _configs(where, card)
    if not configs:
        return None
    if config is None:
        config = default or _default_config(where, configs)
    elif config not in configs:
        hint = did_you_mean(config, configs) or f"; it has {_listed(configs)}"
        raise DataError(f'{where}: no configuration "{config}"{hint}')
    splits = configs[config]
    if split not in splits:
        hint = did_you_mean(split, splits) or f"; it has {_listed(splits)}"
        raise DataError(f'{where}: no split "{split}" in configuration "{config}"{hint}')
    return splits[split]


def _configs(where: str, card: str) -> tuple[dict[str, dict[str, tuple[str, ...]]], str | None]:
    """({configuration: {split: patterns}}, the one that is marked as default)."""
    import yaml

    found = _FRONT_MATTER.match(card)
    if found is None:
        return {}, None
    try:
        data = yaml.safe_load(found[1])
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or type(error).__name__
        raise DataError(
            f"{where}: its README.md cannot be read as a dataset card ({problem}); name the files with path"
        ) from None
    entries = data.get("configs") if isinstance(data, dict) else None
    configs: dict[str, dict[str, tuple[str, ...]]] = {}
    default = None
    for entry in entries if isinstance(entries, list) else []:
        if not isinstance(entry, dict) or entry.get("data_files") is None:
            continue
        folder = str(entry.get("data_dir") or "").strip("/")
        name = str(entry.get("config_name", "default"))
        configs.setdefault(name, _splits(entry["data_files"], f"{folder}/" if folder else ""))
        if entry.get("default") is True:
            default = name
    return configs, default


def _splits(data_files: Any, folder: str) -> dict[str, tuple[str, ...]]:
    """data_files is a pattern, a list of patterns, or a list of {split, path} tables; a pattern alone is "train"."""
    entries = data_files if isinstance(data_files, list) else [data_files]
    splits: dict[str, tuple[str, ...]] = {}
    for entry in entries:
        if isinstance(entry, dict):
            split, paths = str(entry.get("split", "train")), entry.get("path", [])
        else:
            split, paths = "train", entry
        patterns = tuple(folder + str(p).removeprefix("./") for p in (paths if isinstance(paths, list) else [paths]))
        splits[split] = (*splits.get(split, ()), *patterns)
    return splits


def _default_config(where: str, configs: dict[str, Any]) -> str:
    if len(configs) == 1 or "default" in configs:
        return "default" if "default" in configs else next(iter(configs))
    raise DataError(f"{where}: it has several configurations; set config to one of {_listed(configs)}")


def _listed(names: Iterable[str]) -> str:
    quoted = [f'"{name}"' for name in names]
    return ", ".join(quoted[:12]) + (f" and {len(quoted) - 12} more" if len(quoted) > 12 else "")


# File names


def named_files(paths: Sequence[str], config: str | None, split: str) -> list[str]:
    """The data files whose folders or names say the configuration and the split; [] where none does."""
    words = "|".join(map(re.escape, _SPLIT_WORDS.get(split, (split,))))
    meant = re.compile(rf"(?:^|[-._ /])(?:{words})(?:[-._ 0-9/]|$)")
    return [path for path in data_files(paths, config) if meant.search(path)]


def data_files(paths: Sequence[str], config: str | None) -> list[str]:
    """The files that can be read, of one configuration's folder where one is named."""
    readable = [p for p in paths if is_readable_name(p) and not any(part.startswith(".") for part in p.split("/"))]
    # Beside the data of a dataset stand its card and its descriptions.
    readable = [p for p in readable if not p.endswith(".md") and p.split("/")[-1] not in _NOT_DATA]
    return readable if config is None else [p for p in readable if config in p.split("/")[:-1]]


_NOT_DATA = {"dataset_infos.json", "dataset_dict.json", "state.json", "dataset_info.json", "LICENSE.txt", "license.txt"}


def converted_files(where: str, paths: Sequence[str], config: str | None, split: str) -> list[str]:
    """Of the Hub's own conversion (`<config>/<split>/0000.parquet`): the files of a configuration and split.

    Errors: DataError where the conversion is of the first gigabytes only, or has no such configuration.
    """
    configs = sorted({path.split("/")[0] for path in paths if path.endswith(".parquet") and "/" in path})
    if not configs:
        return []
    if config is None:
        config = _default_config(where, dict.fromkeys(configs))
    elif config not in configs:
        return []
    whole = [p for p in paths if p.startswith(f"{config}/{split}/") and p.endswith(".parquet")]
    partial = [p for p in paths if p.startswith((f"{config}/partial-{split}/", f"{config}/partial/{split}/"))]
    if partial and not whole:
        raise DataError(
            f"{where}: the Hub has converted only the first gigabytes of it to parquet; name its own files with path"
        )
    return whole


# Patterns


def pattern_folder(pattern: str) -> str:
    """The deepest folder of a pattern above its first wildcard; '' is the root."""
    parts = pattern.split("/")[:-1]
    fixed = next((i for i, part in enumerate(parts) if is_pattern(part)), len(parts))
    return "/".join(parts[:fixed])


def is_pattern(text: str) -> bool:
    """Whether a path has wildcards."""
    return any(c in text for c in "*?[")


MATCH_SECONDS = 2.0
"""What a pattern may take on the name of a file. A card's author may have chosen both for it to take for ever."""


def compiled_pattern(pattern: str) -> regex.Pattern[str]:
    """* and ? within a folder, ** over folders, [abc] and [!abc] one character; `match` takes a timeout.

    Errors: ValueError.
    """
    out, i = "", 0
    while i < len(pattern):
        c = pattern[i]
        if pattern.startswith("**/", i):
            out, i = out + "(?:.*/)?", i + 3
            continue
        if pattern.startswith("**", i):
            out, i = out + ".*", i + 2
            continue
        end = pattern.find("]", i + 2) if c == "[" else -1
        if end > 0:
            # Of what has a meaning inside brackets in an expression, ranges alone have it here.
            inside = re.sub(r"([\\\[&~|])", r"\\\1", pattern[i + 1 : end])
            out += f"[^/{inside[1:]}]" if inside[0] in "!^" else f"[{inside}]"
            i = end + 1
            continue
        out += {"*": "[^/]*", "?": "[^/]"}.get(c, re.escape(c))
        i += 1
    try:
        re.compile(out + r"\Z")
    except re.error as error:
        raise ValueError(
            f'pattern "{pattern}": {error.msg}; a range goes from the lower character to the higher, as in [a-z]'
        ) from None
    return regex.compile(out + r"\Z", regex.VERSION0)
