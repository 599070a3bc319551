"""What a run leaves in metrics.jsonl as it goes, is interrupted, and returns to a checkpoint."""

import json
from dataclasses import replace
from types import SimpleNamespace

from gradus.roadmap.metrics import Evaluation
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


def test_what_came_after_the_checkpoint_is_dropped_and_what_was_evaluated_is_not_evaluated_again(tmp_path):
    saved = replace(REPORT, evaluate=True, saved=True)
    followed(tmp_path, [saved, replace(REPORT, step=8)])
    lines = followed(tmp_path, [replace(saved, resumed=True), replace(REPORT, step=8)])
    assert [(line["event"], line["step"]) for line in lines] == [("train", 4), ("evaluate", 4), ("train", 8)]
