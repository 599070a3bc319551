"""`gradus eval harness`: tasks of lm-eval on a model, the table that lm-eval prints, and its result as JSON."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from gradus.core.errors import ConfigError, MissingPackageError, did_you_mean
from gradus.core.files import write_atomic
from gradus.roadmap.models import resolve_model


def run_harness(
    model: str,
    tasks: Sequence[str],
    home: Path,
    *,
    include: Path | None,
    limit: int | None,
    shots: int | None,
    chat: bool,
    multiturn: bool,
    think: bool | None,
    out: Path | None,
) -> None:
    """Run and print.

    Errors: MissingPackageError without lm-eval; ConfigError for an unknown task or options that do not fit.
    """
    if importlib.util.find_spec("lm_eval") is None:
        raise MissingPackageError("lm_eval", "lmeval")
    if not chat and (multiturn or think is not None):
        raise ConfigError("--multiturn and --think say how the chat template is filled; add --chat")
    found = resolve_model(model, home)
    import lm_eval
    from lm_eval.tasks import TaskManager
    from lm_eval.utils import make_table

    from gradus.eval.harness import GradusLM

    manager = TaskManager(include_path=None if include is None else str(include))
    names = [name.strip() for name in tasks]
    unknown = [name for name in names if not manager.match_tasks([name])]
    if unknown:
        raise ConfigError([f'lm-eval has no task "{n}"{did_you_mean(n, manager.all_tasks)}' for n in unknown])
    if chat:
        _refuse_templated_perplexity(manager, names)
    lm = GradusLM(str(found.folder), tokenizer=str(found.tokenizer), think=think)
    result = lm_eval.simple_evaluate(
        model=lm,
        tasks=names,
        num_fewshot=shots,
        limit=limit,
        task_manager=manager,
        apply_chat_template=chat,
        fewshot_as_multiturn=multiturn,
        log_samples=out is not None,
    )
    typer.echo(f"{found.label}, lm-eval {lm_eval.__version__}\n\n{make_table(result)}")
    if out is not None:
        write_atomic(out, json.dumps(result, indent=1, ensure_ascii=False, default=str) + "\n")
        typer.echo(f"written to {out}")


def _refuse_templated_perplexity(manager: Any, names: Sequence[str]) -> None:
    """Errors: ConfigError where text whose perplexity is measured would be put into the chat template."""
    measured = {name: (manager.task_index[name].cfg or {}).get("metric_list") or [] for name in names}
    told = [name for name, metrics in measured.items() if any("perplexity" in str(m.get("metric")) for m in metrics)]
    if told:
        raise ConfigError(f"{', '.join(told)}: perplexity is never measured inside a chat template; run without --chat")
