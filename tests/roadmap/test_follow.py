"""What a run leaves in metrics.jsonl as it goes, is interrupted, and returns to a checkpoint."""

import json
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace

from gradus.roadmap.metrics import Evaluation, StepLines
from gradus.roadmap.progress import QuietProgress
from gradus.roadmap.report_measures import counting_lines
from gradus.roadmap.training import follow
from gradus.train.loop import StepReport
from gradus.train.parallel import World

REPORT = StepReport(
    step=4,
    steps=8,
    loss=2.0,
    metrics={},
    lr=0.1,
    grad_norm=1.0,
    tokens=400,
    computed=400,
    tokens_per_second=10.0,
    skipped=0,
    rollbacks=0,
    logged=True,
    saved=False,
    evaluate=False,
)


def followed(folder, reports):
    place = SimpleNamespace(
        work=folder, progress=QuietProgress(), record=lambda **measures: None, follow=lambda *line: None
    )
    follow(iter(reports), place, SimpleNamespace(world=World()), lambda: Evaluation({"bpb": 1.5}))
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_return_to_a_checkpoint_is_written_once_with_the_data_it_passes_over(tmp_path):
    after = replace(REPORT, step=6, rollbacks=1, passed_over=((5, 2, 2, 5),))
    lines = followed(tmp_path, [REPORT, after, replace(after, step=8, evaluate=True)])
    assert [line["event"] for line in lines] == ["train", "rollback", "train", "train", "evaluate"]
    assert lines[1] == {"event": "rollback", "step": 5, "returned_to": 2, "data_steps": [2, 5]}
    # Resumed after the rollback it stays; from before it, it has not happened yet.
    again = followed(tmp_path, [replace(after, resumed=True)])
    assert [line["event"] for line in again] == ["train", "rollback", "train"]
    earlier = followed(tmp_path, [replace(REPORT, resumed=True)])
    assert [line["event"] for line in earlier] == ["train"]


def test_two_returns_from_the_same_step_are_two_lines_also_after_a_break(tmp_path):
    first = replace(REPORT, step=6, rollbacks=1, passed_over=((5, 2, 2, 5),))
    second = replace(first, step=7, rollbacks=2, passed_over=((5, 2, 2, 5), (5, 2, 5, 8)))
    lines = followed(tmp_path, [REPORT, first, second])
    windows = [line["data_steps"] for line in lines if line["event"] == "rollback"]
    assert windows == [[2, 5], [5, 8]]
    counting, _ = counting_lines(lines)
    assert [line["step"] for line in counting] == [7]
    again = followed(tmp_path, [replace(second, resumed=True, passed_over=[list(one) for one in second.passed_over])])
    assert again == lines


def test_a_walk_killed_soon_after_a_return_keeps_its_line_before_the_steps_that_followed_it(tmp_path):
    back = replace(REPORT, step=3, rollbacks=1, passed_over=((5, 2, 2, 5),))
    followed(tmp_path, [replace(REPORT, step=3), REPORT, back, replace(back, step=4, saved=True)])
    lines = followed(tmp_path, [replace(back, step=4, saved=True, resumed=True), replace(back, step=8)])
    assert [(line["event"], line["step"]) for line in counting_lines(lines)[0]] == [
        ("train", 3),
        ("train", 4),
        ("train", 8),
    ]


def test_samples_are_cut_back_to_the_checkpoint_too(tmp_path):
    samples = StepLines(tmp_path / "samples.jsonl")
    for step in (4, 8):
        samples.append(step=step, prompt="The ", text="end")
    samples.cut_after(4)
    assert [line["step"] for line in samples.lines()] == [4]


def test_what_came_after_the_checkpoint_is_dropped_and_what_was_evaluated_is_not_evaluated_again(tmp_path):
    saved = replace(REPORT, evaluate=True, saved=True)
    followed(tmp_path, [saved, replace(REPORT, step=8)])
    lines = followed(tmp_path, [replace(saved, resumed=True), replace(REPORT, step=8)])
    assert [(line["event"], line["step"]) for line in lines] == [("train", 4), ("evaluate", 4), ("train", 8)]


def test_a_walk_killed_while_it_notes_the_best_evaluates_again_and_notes_it(tmp_path):
    saved, noted = replace(REPORT, evaluate=True, saved=True), []

    def note(step, measures):
        noted.append(step)
        if len(noted) == 1:
            raise KeyboardInterrupt

    place = SimpleNamespace(
        work=tmp_path, progress=QuietProgress(), record=lambda **measures: None, follow=lambda *line: None
    )
    for report in (saved, replace(saved, resumed=True), replace(saved, resumed=True)):
        with suppress(KeyboardInterrupt):
            follow(
                iter([report]),
                place,
                SimpleNamespace(world=World()),
                lambda: Evaluation({"bpb": 1.5}),
                SimpleNamespace(note=note),
            )
    assert noted == [4, 4]
