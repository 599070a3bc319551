"""Where the rows of a pool come from: files on this machine, datasets of the Hub, and ready sets by name.

Adding a kind of source is a settings class, its entry in `PoolSource`, and a branch in `read_pool_source`.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator

from gradus.core.errors import did_you_mean
from gradus.core.files import readable_name
from gradus.core.settings import Settings
from gradus.data.hub import HubSource
from gradus.data.remote_settings import as_tuple
from gradus.data.shard_tasks import RawPolicy

if TYPE_CHECKING:
    from gradus.conversation.calculator_marks import RunTool
    from gradus.conversation.records import Imported
    from gradus.data.conversation_presets import ConversationPreset


class RowSettings(Settings):
    """max_rows: rows to take at most. run_tools: recompute results of calculator marks in the rows (GSM8K) with the
    calculator that the model will be given. shape: the layout of the rows, where their keys do not tell.
    """

    max_rows: int | None = Field(default=None, ge=1)
    run_tools: bool = True
    shape: str | None = None

    @field_validator("shape")
    @classmethod
    def _shape_is_known(cls, shape: str | None) -> str | None:
        from gradus.conversation.record_shapes import SHAPE_NAMES

        if shape is not None and shape not in SHAPE_NAMES:
            raise ValueError(f'no shape "{shape}"{did_you_mean(shape, SHAPE_NAMES) or _listed(SHAPE_NAMES)}')
        return shape


class PoolFiles(RowSettings):
    """path: a file, pattern or folder. name: the label of the rows, by default each file's name."""

    kind: Literal["files"] = "files"
    path: str
    name: str | None = None


class _Remote(RowSettings):
    """shuffle: take the shards, and the row groups of parquet, in an order drawn from the stage's seed, so that a limit
    takes from everywhere; else as they stand. raw: what becomes of a shard's
    bytes: "stream" reads them over the network and stores nothing, "delete" stores a shard while it is read, "keep"
    keeps it.
    """

    shuffle: bool = True
    # How the bytes travel does not change the rows: not part of what identifies a pool.
    raw: RawPolicy = Field(default="stream", exclude=True)


class PoolHub(_Remote):
    """A dataset of the Hugging Face Hub.

    repo: "owner/name". config, split: as its card, or the names of its files, have them. revision: branch, tag or
    commit. path: patterns of files in the repository, instead of config and split. where: only rows whose columns have
    one of the given values. name: the label of the rows, by default the dataset's.
    """

    kind: Literal["hub"] = "hub"
    repo: str
    config: str | None = None
    split: str = "train"
    revision: str = "main"
    path: str | tuple[str, ...] | None = None
    name: str | None = None
    where: dict[str, str | tuple[str, ...]] = Field(default_factory=dict)

    def hub_source(self) -> HubSource:
        """The same dataset as the corpora read it: its files, and how they are reached."""
        return HubSource(
            repo=self.repo, config=self.config, split=self.split, revision=self.revision, path=self.path,
            name=self.name, shuffle=self.shuffle, raw=self.raw,
        )  # fmt: skip


class PoolPreset(_Remote):
    """A ready set of conversations.

    name: which one. split: another split than the one that is trained on. revision: a branch, tag or commit.
    """

    kind: Literal["preset"] = "preset"
    name: str
    split: str | None = None
    revision: str = "main"

    @field_validator("name")
    @classmethod
    def _name_is_known(cls, name: str) -> str:
        from gradus.data.conversation_presets import CONVERSATION_PRESETS

        if name not in CONVERSATION_PRESETS:
            hint = did_you_mean(name, CONVERSATION_PRESETS) or f"; presets are {', '.join(CONVERSATION_PRESETS)}"
            raise ValueError(f'no ready set of conversations "{name}"{hint}')
        return name

    @property
    def preset(self) -> ConversationPreset:
        """The entry of the table."""
        from gradus.data.conversation_presets import CONVERSATION_PRESETS

        return CONVERSATION_PRESETS[self.name]

    def resolved(self) -> PoolHub:
        """What it stands for; its rows carry the preset's name."""
        source = self.preset.source
        changes: dict[str, Any] = {key: getattr(self, key) for key in _Remote.model_fields}
        changes |= {"name": self.name, "revision": self.revision, "shape": self.shape or source.shape}
        return source.model_copy(update=changes | {"split": self.split or source.split})


def _listed(names: Sequence[str]) -> str:
    return f"; shapes are {', '.join(names)}"


def kind(source: object) -> str:
    """Which kind of source a table is; files where it does not say."""
    found = source.get("kind", "files") if isinstance(source, Mapping) else getattr(source, "kind", "files")
    return str(found)


AnyPoolSource = PoolFiles | PoolHub | PoolPreset
PoolSource = Annotated[
    Annotated[PoolFiles, Tag("files")] | Annotated[PoolHub, Tag("hub")] | Annotated[PoolPreset, Tag("preset")],
    Discriminator(kind),
]


def read_pool_source(
    source: AnyPoolSource, files: Sequence[Path], seed: int, run_tool: RunTool | None, raw_dir: Path | None = None
) -> Iterator[Imported]:
    """Conversations, pairs and quarantined rows of a source in a fixed order, at most its `max_rows`.

    files: those of a files source. run_tool: the calculator, for a source with `run_tools`. raw_dir: where shards are
    stored that are to be. Errors: DataError.
    """
    from gradus.conversation.records import Quarantined
    from gradus.data.record_rows import NOT_SELECTED

    run_tool = run_tool if source.run_tools else None
    rows: Generator[Imported]
    if isinstance(source, PoolFiles):
        rows = (row for path in files for row in _file_rows(path, source, run_tool))
    elif isinstance(source, PoolHub):
        rows = _hub_rows(source, None, seed, run_tool, raw_dir)
    else:
        rows = _hub_rows(source.resolved(), source.preset.columns, seed, run_tool, raw_dir)
    taken = 0
    with closing(rows):
        for row in rows:
            if source.max_rows is not None and taken >= source.max_rows:
                return
            taken += not (isinstance(row, Quarantined) and row.kind == NOT_SELECTED)
            yield row


def _file_rows(path: Path, source: PoolFiles, run_tool: RunTool | None) -> Iterator[Imported]:
    """Rows under the source's name; without one, under what a row calls its own source, else the file's name."""
    from gradus.conversation.records import import_records, imported_rows

    label = source.name or readable_name(path.name)
    if path.suffix.lower() != ".parquet":
        found = import_records(path, label, run_tool, source.shape)
    else:
        from gradus.data.file_formats import LocalFile
        from gradus.data.record_rows import read_rows

        rows = read_rows(LocalFile(path), "parquet", {})
        found = imported_rows(rows, readable_name(path), label, run_tool, source.shape)
    for row in found:
        yield replace(row, source=source.name) if source.name else row


def _hub_rows(
    source: PoolHub, columns: Sequence[str] | None, seed: int, run_tool: RunTool | None, raw_dir: Path | None
) -> Generator[Imported]:
    from gradus.conversation.records import imported_rows
    from gradus.data.hub import hub_refusal
    from gradus.data.record_rows import read_rows
    from gradus.data.shard_reading import shard_file
    from gradus.data.sources import shard_tasks
    from gradus.data.transfer import StatusError

    where = {key: as_tuple(taken) for key, taken in source.where.items()}
    for task in shard_tasks(source.hub_source(), Path(), seed):
        try:
            with shard_file(task, raw_dir) as file:
                order = [seed, task.name] if source.shuffle else None
                rows = read_rows(file, task.format, where, columns, order)
                # The set's own column "source" tells where it took a row from; a pool counts by what it took it from.
                for item in imported_rows(rows, f"{source.repo}/{task.name}", task.label, run_tool, source.shape):
                    yield replace(item, source=task.label)
        except StatusError as error:
            raise hub_refusal(error, source.repo, f"Hub dataset {source.repo}: {task.name}") from None
