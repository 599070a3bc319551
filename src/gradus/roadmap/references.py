"""What stages of a roadmap name as their inputs: earlier stages, of a kind that fits, and no circle."""

from __future__ import annotations

from collections.abc import Mapping

from gradus.core.errors import did_you_mean
from gradus.core.settings import KeyPath
from gradus.roadmap.draft import Draft, Report, an_artifact, either, key_text, reporter
from gradus.roadmap.layers import Layered, StageData
from gradus.roadmap.stage import Input, Reference


def check_references(layered: Layered, drafts: list[Draft]) -> None:
    """Report every stage that is named and is not there, stands later, makes something else or goes in a circle."""
    positions = {d.name: i for i, d in reversed(list(enumerate(drafts))) if d.name}
    in_circles = _report_circles(layered, drafts, positions)
    for index, draft in enumerate(drafts):
        report = reporter(layered, draft.source)
        earlier = [d for d in drafts[:index] if d.name]
        for key, references in draft.references.items():
            assert draft.module is not None
            declared = next(i for i in draft.module.INPUTS if i.key == key)
            for reference in references:
                _check_reference(declared, reference, drafts, positions, index, earlier, in_circles, report)
        for number, gate in enumerate(draft.gates):
            other = gate.not_worse_than
            if other is not None and other not in [d.name for d in earlier]:
                path: KeyPath = ("gate", number, "not_worse_than")
                hint = did_you_mean(other, [d.name for d in earlier])
                report(path, f'gate: "not_worse_than" needs an earlier stage, found "{other}"{hint}')


def _check_reference(
    declared: Input,
    reference: Reference,
    drafts: list[Draft],
    positions: Mapping[str, int],
    index: int,
    earlier: list[Draft],
    in_circles: set[str],
    report: Report,
) -> None:
    name, written = reference.stage, key_text(reference.path)
    fitting = [d.name for d in earlier if not d.makes or d.makes in declared.kinds]
    position = positions.get(name)
    if reference.checkpoint is not None and declared.key != "from":
        report(reference.path, f'"{written}": only `from` takes a checkpoint; leave out "@{reference.checkpoint}"')
    if position is None:
        hint = did_you_mean(name, fitting) or did_you_mean(name, positions)
        if not hint:
            hint = f"; earlier stages that fit: {', '.join(fitting)}" if fitting else "; no earlier stage fits"
        report(reference.path, f'"{written}": no stage is called "{name}"{hint}')
    elif position >= index:
        if name not in in_circles:
            place = drafts[position].source
            report(
                reference.path,
                f'"{written}": stage "{name}" stands later (at {_newest_place(place)}); '
                "a stage takes its inputs from earlier ones: move it up",
            )
    elif drafts[position].makes and drafts[position].makes not in declared.kinds:
        quoted = [f'"{name}"' for name in fitting]
        hint = f"; did you mean {either(quoted)}?" if fitting else ""
        report(
            reference.path,
            f'"{written}": expected {an_artifact(declared.kinds)}, but stage "{name}" makes '
            f"{an_artifact((drafts[position].makes,))}{hint}",
        )


def _newest_place(source: StageData) -> str:
    return next((label for path, label in source.marks if path == ()), "the end")


def _report_circles(layered: Layered, drafts: list[Draft], positions: Mapping[str, int]) -> set[str]:
    """Report each circle of inputs once, at its first stage; the names of all stages in circles."""
    edges = {d.name: [r.stage for refs in d.references.values() for r in refs if r.stage in positions] for d in drafts}
    circles: set[str] = set()
    for draft in drafts:
        if draft.name in circles or not draft.name:
            continue
        circle = _path_back(draft.name, edges)
        if circle:
            circles.update(circle)
            report = reporter(layered, draft.source)
            first = next(r for refs in draft.references.values() for r in refs if r.stage == circle[0])
            text = " -> ".join([draft.name, *circle])
            report(first.path, f'"{key_text(first.path)}": the inputs go in a circle: {text}')
    return circles


def _path_back(start: str, edges: Mapping[str, list[str]]) -> list[str]:
    """The shortest way from a stage along its inputs back to itself, without the start; [] if none."""
    ways = [[name] for name in edges[start]]
    seen: set[str] = set()
    while ways:
        way = ways.pop(0)
        if way[-1] == start:
            return way
        if way[-1] not in seen:
            seen.add(way[-1])
            ways += [[*way, name] for name in edges.get(way[-1], [])]
    return []
