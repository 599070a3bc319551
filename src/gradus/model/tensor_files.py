"""Tensors in one or several safetensors files, by name, each read only as far as it is asked for.

Several files have an index beside them, as the Hub stores large models: `<name>.safetensors.index.json` with
`weight_map`, the file that holds each tensor.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import EllipsisType
from typing import Any, Self

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gradus.core.errors import ArtifactError


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a file: its shape is known, its rows are read by slicing, all of it by [...]."""

    file: Any
    name: str

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.file.get_slice(self.name).get_shape())

    def __getitem__(self, rows: slice | EllipsisType) -> Tensor:
        found: Tensor = self.file.get_slice(self.name)[rows]
        return found


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write one file. Errors: OSError where the system cannot (no space left), which the library tells as text."""
    try:
        save_file(dict(tensors), path, metadata={"format": "pt"})
    except SafetensorError as error:
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), str(error), str(path)) from error


def index_file(name: str) -> str:
    """The name of the index beside the parts of `<name>.safetensors`."""
    return f"{name}.index.json"


def part_file(name: str, part: int, parts: int) -> str:
    """The name of part `part`, from 0, of `parts` of the tensors called `name`."""
    return f"{name.removesuffix('.safetensors')}-{part + 1:05d}-of-{parts:05d}.safetensors"


class TensorFiles(Mapping[str, StoredTensor]):
    """The tensors of `folder/name`, or of the files that the index of that name lists. Close it after use.

    Errors: ArtifactError where nothing is there, or it is damaged.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._stack = ExitStack()
        self._tensors: dict[str, StoredTensor] = {}
        with self._stack:
            for path in _files(folder, name):
                try:
                    file = self._stack.enter_context(safe_open(path, framework="pt"))
                except SafetensorError as error:
                    raise ArtifactError(f"{path} is damaged: {error}") from None
                self._tensors |= {key: StoredTensor(file, key) for key in file.keys()}  # noqa: SIM118 (no mapping)
            self._stack = self._stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def __getitem__(self, name: str) -> StoredTensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def _files(folder: Path, name: str) -> list[Path]:
    if (folder / name).is_file():
        return [folder / name]
    index = folder / index_file(name)
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except FileNotFoundError:
        raise ArtifactError(f"{folder / name} is missing; {folder} is no model folder") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ArtifactError(f"{index} is damaged: expected JSON with a weight_map") from None
    for part in names:
        if Path(part).name != part or not (folder / part).is_file():
            raise ArtifactError(f"{index}: its file {part} is missing")
    return [folder / part for part in names]
