"""Where a model comes from, read off the manifests of a home: stages, sources and licences, results, held-out text.

Only what was recorded is told. An artifact that is not on this machine is named by its fingerprint alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from gradus.core.artifact import MANIFEST, Artifact, open_artifact
from gradus.core.comparison import named_measures
from gradus.core.errors import ArtifactError, DataError
from gradus.core.home import ARTIFACTS, WORK_SUFFIX
from gradus.core.privacy import shown, shown_address
from gradus.core.quantity import format_count
from gradus.data.conversation_presets import CONVERSATION_PRESETS
from gradus.data.presets import PRESETS
from gradus.release.origin import DataSource, LineageStep, Measured, Origin
from gradus.roadmap.lineage import FINE_TUNED

_SUMMED = ("documents", "conversations", "pairs", "vocab_size", "parameters", "steps", "tokens")
_HELD_OUT_DOCUMENTS = 400
_OWN_LICENCE = "written by gradus's own generators, under its Apache-2.0"


def origin_of(artifact: Artifact, home: Path, name: str, evaluations: Sequence[Artifact] | None = None) -> Origin:
    """What is known of the model that an artifact holds.

    name: of the model for its user. evaluations: those to take results from, None for all of this model in the home.
    """
    known = _artifacts(home) | {artifact.fingerprint: artifact}
    ancestors = _ancestors(artifact, known)
    if evaluations is None:
        evaluations = [a for a in known.values() if a.kind == "eval" and a.parent("from") == artifact.fingerprint]
    documents, text = _held_out(ancestors)
    steps = tuple(
        LineageStep(a.manifest.name, a.kind, a.fingerprint, _summary(a.results)) for a in (*ancestors, *evaluations)
    )
    return Origin(
        name=name,
        fingerprint=artifact.fingerprint,
        trained=_trained(artifact),
        seed=artifact.manifest.seed,
        lineage=steps,
        sources=tuple(source for a in ancestors for source in _sources(a)),
        base_models=tuple(_taken(a) for a in ancestors if a.kind == "import"),
        results=tuple(m for a in evaluations for m in _measured(a.manifest.name, a.results)),
        documents=tuple(documents),
        text=text,
    )


def _trained(artifact: Artifact) -> str:
    is_chat = artifact.kind in FINE_TUNED or artifact.results.get("trained") == "chat"
    return "chat" if is_chat else "base"


def _artifacts(home: Path) -> dict[str, Artifact]:
    """Every whole artifact of a home by its fingerprint."""
    found = {}
    for manifest in sorted((home / ARTIFACTS).glob(f"*/{MANIFEST}")):
        if manifest.parent.name.endswith(WORK_SUFFIX):
            continue
        try:
            artifact = open_artifact(manifest.parent, verify=False)
        except ArtifactError:
            continue  # a damaged one is told where it is used
        found[artifact.fingerprint] = artifact
    return found


def _ancestors(artifact: Artifact, known: Mapping[str, Artifact]) -> list[Artifact]:
    """An artifact and all it was made from, parents before children."""
    order: dict[str, Artifact] = {}

    def visit(one: Artifact) -> None:
        for parents in one.manifest.parents.values():
            for parent in [parents] if isinstance(parents, str) else parents:
                fingerprint = parent.partition("@")[0]
                if fingerprint in known and fingerprint not in order:
                    visit(known[fingerprint])
        order[one.fingerprint] = one

    visit(artifact)
    return list(order.values())


def _summary(results: Mapping[str, Any]) -> str:
    figures = [
        f"{format_count(results[key])} {key.replace('_', ' ')}" for key in _SUMMED if _is_count(results.get(key))
    ]
    return ", ".join(figures)


def _is_count(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _sources(artifact: Artifact) -> Iterator[DataSource]:
    """What a stage read from outside, by its settings."""
    settings, stage = artifact.manifest.settings, artifact.manifest.name
    # A tokenizer's sources are the stages that it read.
    yield from (_source(stage, source) for source in settings.get("sources") or () if isinstance(source, Mapping))
    if "persona" in settings and "teacher" not in settings:
        yield DataSource(stage, "conversations", _OWN_LICENCE)
    if "teacher" in settings:
        teacher = settings["teacher"]
        host = shown_address(str(teacher.get("base_url", "")))
        yield DataSource(stage, f"{teacher['model']} (a teacher model at {host})")
        if settings.get("documents"):
            yield DataSource(stage, shown(str(settings["documents"])))
    if settings.get("take"):
        yield DataSource(stage, _taken(artifact))


def _taken(artifact: Artifact) -> str:
    """What a tokenizer or model is, by its name on the Hub and commit, or by the name of its folder."""
    take = str(artifact.manifest.settings["take"])
    commit = artifact.manifest.sources.get(take) if take.startswith("hub:") else None
    return f"{take.partition('@')[0]}@{commit}" if commit else str(shown(take))


def _source(stage: str, source: Mapping[str, Any]) -> DataSource:
    kind, name = source.get("kind"), str(source.get("name", ""))
    if kind == "synthetic":
        return DataSource(stage, name, _OWN_LICENCE)
    if kind == "preset" and name in PRESETS:
        preset = PRESETS[name]
        return DataSource(stage, preset.title, preset.licence, _dataset(preset.homepage), preset.homepage)
    if kind == "preset" and name in CONVERSATION_PRESETS:
        talk = CONVERSATION_PRESETS[name]
        return DataSource(stage, talk.title, talk.licence, _dataset(talk.homepage), talk.homepage)
    if kind == "hub":
        repo = str(source.get("repo", ""))
        return DataSource(stage, repo, dataset=repo, reference=f"https://huggingface.co/datasets/{repo}")
    written = shown(source.get("path") or source.get("manifest") or name or kind)
    return DataSource(stage, ", ".join(written) if isinstance(written, list) else str(written))


def _dataset(homepage: str) -> str:
    """owner/name of a page of the Hub's datasets, "" for another page."""
    _, found, name = homepage.partition("huggingface.co/datasets/")
    return name.strip("/") if found else ""


def _measured(stage: str, results: Mapping[str, Any]) -> Iterator[Measured]:
    """Every measure with an interval; where a total stands beside its parts, the total alone."""
    measures = named_measures(results)
    for name, found in measures.items():
        if {"lower", "upper"} <= found.keys() and not _is_part(name, measures):
            n = found.get("n")
            value, low, high = (float(found[key]) for key in ("value", "lower", "upper"))
            yield Measured(stage, name, value, low, high, n if isinstance(n, int) else None)


def _is_part(name: str, measures: Collection[str]) -> bool:
    """Whether a total stands beside a measure, or beside a group that it is in."""
    words = name.split(".")
    return any(word != "total" and ".".join([*words[:place], "total"]) in measures for place, word in enumerate(words))


def _held_out(ancestors: Sequence[Artifact]) -> tuple[list[str], str]:
    """Documents that the model was not trained on, of the newest token shards it comes from, and what they are."""
    from gradus.data.shards import TokenStore
    from gradus.tokenizer.loading import load_tokenizer

    by_fingerprint = {a.fingerprint: a for a in ancestors}
    for artifact in reversed(ancestors):
        made = by_fingerprint.get(artifact.parent("tokenizer") or "") if artifact.kind == "tokens" else None
        if made is None:
            continue
        try:
            store = TokenStore(artifact.path, "validation")
            tokenizer = load_tokenizer(made.file("tokenizer"))
        except (DataError, ArtifactError):
            continue  # without them the check takes other text
        step = max(1, store.num_documents // _HELD_OUT_DOCUMENTS)
        numbers = islice(range(0, store.num_documents, step), _HELD_OUT_DOCUMENTS)
        documents = [tokenizer.decode(store.ids(number).tolist(), skip_special=True) for number in numbers]
        documents = [document for document in documents if document.strip()]
        if documents:
            return documents, f"held-out documents of stage {artifact.manifest.name}"
    return [], ""
