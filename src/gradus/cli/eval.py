"""What `gradus eval` takes. The work is in other files, imported when a command runs."""

# Annotations are not postponed here: typer would compile and evaluate each of them four times at every start.
from pathlib import Path
from typing import Annotated

import typer

from gradus.cli.options import DTYPES, BackendName, Constrain, Home, ModelName, home_folder
from gradus.model.precision import DecodePrecision

eval_app = typer.Typer(help="Measure a model.", no_args_is_help=True, rich_markup_mode=None)

Judge = Annotated[
    Path | None,
    typer.Option("--judge", metavar="FILE", help="TOML with base_url, model, key_variable of a model that rates."),
]


@eval_app.command("probes")
def eval_probes(
    model: Annotated[
        list[str],
        typer.Option("--model", "-m", help="As for chat; several are set side by side."),
    ],
    suite: Annotated[
        str, typer.Option("--suite", "-s", help="The probes (.jsonl or .toml), or starter, which comes with gradus.")
    ],
    stages: Annotated[bool, typer.Option("--stages", help="Every model of the roadmap, in order.")] = False,
    variants: Annotated[
        bool, typer.Option("--variants", help="Also without tools, without thinking, and without both.")
    ] = False,
    samples: Annotated[int | None, typer.Option("--samples", min=1, help="Answers a probe, sampled.")] = None,
    temperature: Annotated[float, typer.Option("--temperature", "-t", min=0.0, help="Of answers; 0 is greedy.")] = 0.0,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="Of an answer.")] = 512,
    constrain: Constrain = None,
    dtype: Annotated[DecodePrecision | None, typer.Option("--dtype", help=f"{DTYPES} [fp32].")] = None,
    backend: BackendName = None,
    judge: Judge = None,
    json: Annotated[Path | None, typer.Option("--json", metavar="OUT", help="Write the result as JSON.")] = None,
    failures: Annotated[int, typer.Option("--failures", min=0, help="Failed probes to show.")] = 5,
    home: Home = None,
) -> None:
    """Ask a probe suite and judge the answers."""
    from gradus.cli.probing import evaluate_probes

    evaluate_probes(
        model, suite, home_folder(home), stages=stages, variants=variants, samples=samples, temperature=temperature,
        constrain=constrain, max_tokens=max_tokens, out=json, failures=failures, judge=judge,
        precision=dtype, backend=backend,
    )  # fmt: skip


@eval_app.command("tasks")
def eval_tasks(
    model: ModelName,
    tasks: Annotated[str, typer.Option("--tasks", "-t", help="Benchmarks by name, with commas.")],
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Items of each task, evenly spread [all].")
    ] = None,
    subset_seed: Annotated[
        int | None, typer.Option("--subset-seed", min=0, help="With --limit: draw the items, as many from every part.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--folder", help="Where the evaluation sets are [GRADUS_BENCHMARKS].")
    ] = None,
    bundle: Annotated[
        str | None,
        typer.Option("--bundle", help="CORE's folder, archive or hub:OWNER/NAME [core_bundle in it]."),
    ] = None,
    bos: Annotated[bool, typer.Option("--bos", help="Begin every text with the end-of-text token.")] = False,
    samples: Annotated[int, typer.Option("--samples", min=1, help="Answers to each item that is answered.")] = 1,
    temperature: Annotated[float, typer.Option("--temperature", min=0.0, help="Of answers; 0 is greedy.")] = 0.0,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="Of an answer.")] = 512,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of sampling.")] = 0,
    tools: Annotated[str, typer.Option("--tools", help="Tools that written answers may call, with commas.")] = "",
    think: Annotated[bool | None, typer.Option("--think/--direct", help="Answers in chat format think first.")] = None,
    shots: Annotated[int, typer.Option("--shots", min=0, help="Worked examples before items in chat format.")] = 0,
    multiturn: Annotated[
        bool, typer.Option("--multiturn/--one-message", help="Each example a turn, or all in one message.")
    ] = True,
    judge: Judge = None,
    corpus: Annotated[
        str | None, typer.Option("--corpus", help="ROADMAP/STAGE of a corpus to look for the items in.")
    ] = None,
    json: Annotated[
        Path | None, typer.Option("--json", metavar="OUT", help="Write the result as JSON; a run cut short goes on.")
    ] = None,
    home: Home = None,
) -> None:
    """Score benchmarks: by log-likelihood, as lm-eval defines them, CORE, and those whose answers are written."""
    from gradus.cli.evaluating import evaluate_tasks
    from gradus.core.home import ANSWERS
    from gradus.data.benchmarks import benchmarks_folder
    from gradus.eval.benchmarks import BenchmarkSettings
    from gradus.eval.core_bundle import bundle_at
    from gradus.eval.judging import judge_from_file

    place = benchmarks_folder(str(folder) if folder else None, Path())
    settings = BenchmarkSettings(
        place, bundle_at(bundle, Path()), limit, bos, samples, temperature, seed, max_tokens,
        tuple(filter(None, tools.split(","))), think,
        shots, multiturn, None if judge is None else judge_from_file(judge, home_folder(home) / ANSWERS),
        subset_seed,
    )  # fmt: skip
    evaluate_tasks(model, tasks.split(","), home_folder(home), settings, corpus, json)


@eval_app.command("audit")
def eval_audit(
    model: ModelName,
    samples: Annotated[int, typer.Option("--samples", min=1, help="Answers to draw.")] = 100,
    prompts: Annotated[
        Path | None, typer.Option("--prompts", metavar="FILE", help="Conversations to ask from, else from templates.")
    ] = None,
    temperature: Annotated[float, typer.Option("--temperature", "-t", min=0.0, help="Of answers; 0 is greedy.")] = 0.7,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of sampling.")] = 0,
    json: Annotated[Path | None, typer.Option("--json", metavar="OUT", help="Write the result as JSON.")] = None,
    home: Home = None,
) -> None:
    """How often its answers hold artifacts: tags, stock labels, hedges, loops, no end."""
    from gradus.cli.evaluating import audit_model

    audit_model(model, home_folder(home), samples, prompts, temperature, seed, json)


@eval_app.command("harness")
def eval_harness(
    model: ModelName,
    tasks: Annotated[str, typer.Option("--tasks", "-t", help="Tasks of lm-eval by name, with commas.")],
    include: Annotated[Path | None, typer.Option("--include", help="A folder of task files (.yaml).")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="The first items of each task [all].")] = None,
    shots: Annotated[int | None, typer.Option("--shots", min=0, help="Worked examples [the task's own].")] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Put prompts into the chat template.")] = False,
    multiturn: Annotated[bool, typer.Option("--multiturn", help="With --chat: each example is a turn.")] = False,
    think: Annotated[bool | None, typer.Option("--think/--direct", help="With --chat: think first or not.")] = None,
    json: Annotated[Path | None, typer.Option("--json", metavar="OUT", help="Write what lm-eval returns.")] = None,
    home: Home = None,
) -> None:
    """Run tasks of lm-eval, EleutherAI's evaluation harness, on our engine."""
    from gradus.cli.harness import run_harness

    run_harness(
        model, tasks.split(","), home_folder(home), include=include, limit=limit, shots=shots, chat=chat,
        multiturn=multiturn, think=think, out=json,
    )  # fmt: skip
