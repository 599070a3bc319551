"""What any task can measure, by the way its items are answered."""

from __future__ import annotations

from gradus.eval.generative_result import GenerativeResult
from gradus.eval.mt_bench_result import MtBenchResult
from gradus.eval.task_result import TaskResult

Result = TaskResult | GenerativeResult | MtBenchResult
