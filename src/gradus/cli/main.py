"""The command line: what each command takes. The work is in the other files, imported when a command runs."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from types import TracebackType
from typing import Annotated

import typer

from gradus.cli.options import BackendName, Constrain, Home, Json, home_folder
from gradus.cli.sections import Sectioned
from gradus.cli.serve import deploy, serve_app
from gradus.cli.tools import IndexFile, Tools, ToolsFile, declared, opened_tools
from gradus.core.errors import ConfigError, GateFailedError, GradusError
from gradus.core.files import place_error
from gradus.core.secrets import redacted
from gradus.core.terminal import harmless
from gradus.model.precision import DecodePrecision

EXIT_ERROR, EXIT_CONFIG, EXIT_GATE, EXIT_INTERRUPTED = 1, 2, 3, 130

app = typer.Typer(
    name="gradus",
    cls=Sectioned,
    help="From raw text to a small chat model, by one roadmap file.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
eval_app = typer.Typer(help="Measure a model.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(eval_app, name="eval")
data_app = typer.Typer(
    help="Look into a corpus or a pool of conversations.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(data_app, name="data")
app.add_typer(serve_app, name="serve")
app.command()(deploy)

RoadmapFile = Annotated[Path, typer.Argument(metavar="FILE", help="The roadmap (.toml).")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[STAGE.KEY=VALUE]...", help="Settings that replace the file's, in TOML syntax."),
]
ModelName = Annotated[
    str,
    typer.Option("--model", "-m", help="A roadmap's name, ROADMAP/STAGE or a folder; @STEP picks a checkpoint."),
]
CorpusName = Annotated[
    str, typer.Argument(metavar="CORPUS", help="ROADMAP/STAGE, a roadmap with one corpus, or an artifact's folder.")
]
Judge = Annotated[
    Path | None,
    typer.Option("--judge", metavar="FILE", help="TOML with base_url, model, key_variable of a model that rates."),
]
_DTYPES = "Of the weights: fp32, bf16, fp16, int8 (processors), or auto, what is fastest here"
Smoke = Annotated[bool, typer.Option("--smoke", help="Every stage at toy size, apart from the real results.")]


def _print_version(asked: bool) -> None:
    if asked:
        from gradus.core.machine import package_version

        typer.echo(f"gradus {package_version('gradus')}")
        raise typer.Exit


@app.callback()
def gradus(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """From raw text to a small chat model, by one roadmap file."""


@app.command()
def run(
    file: RoadmapFile,
    overrides: Overrides = None,
    only: Annotated[str | None, typer.Option("--only", metavar="STAGE", help="Run this stage alone.")] = None,
    smoke: Smoke = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Run everything and keep nothing: no checkpoint, artifact or report.")
    ] = False,
    override: Annotated[
        str | None,
        typer.Option("--override", metavar="REASON", help="Go on past failed gates; the reason is recorded."),
    ] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Walk a roadmap, or go on with it: finished stages are reused."""
    from gradus.cli.walking import run_roadmap

    run_roadmap(
        file, overrides or [], home_folder(home), only=only, smoke=smoke, reason=override, as_json=json,
        dry_run=dry_run,
    )  # fmt: skip


@app.command()
def plan(
    file: RoadmapFile,
    overrides: Overrides = None,
    device: Annotated[
        list[str] | None,
        typer.Option("--device", help="A device of the table (h100, a100, ...) [this machine]; several are compared."),
    ] = None,
    smoke: Smoke = False,
    calibrate: Annotated[
        bool,
        typer.Option("--calibrate", help="First measure this machine by a short run; writes HOME/devices.toml."),
    ] = False,
    home: Home = None,
    json: Json = False,
) -> None:
    """Print steps, tokens, FLOPs, memory, time and money of each stage without running anything."""
    from gradus.cli.walking import calibrate_machine, print_plan

    if calibrate:
        calibrate_machine(file, overrides or [], home_folder(home), smoke=smoke, as_json=json)
    print_plan(file, overrides or [], home_folder(home), devices=device or [], smoke=smoke, as_json=json)


@app.command()
def chat(
    model: ModelName,
    question: Annotated[list[str] | None, typer.Argument(help="Ask this and end; else a conversation.")] = None,
    think: Annotated[
        bool | None, typer.Option("--think/--direct", help="Think first or not [the model decides].")
    ] = None,
    tools: Tools = "all",
    system: Annotated[str | None, typer.Option("--system", help="A system message.")] = None,
    temperature: Annotated[
        float | None,
        typer.Option("--temperature", "-t", min=0.0, help="0: the likeliest token [0; with --url the service's]."),
    ] = None,
    top_k: Annotated[int | None, typer.Option("--top-k", min=1)] = None,
    top_p: Annotated[float | None, typer.Option("--top-p", min=0.0, max=1.0)] = None,
    min_p: Annotated[
        float | None,
        typer.Option("--min-p", min=0.0, max=1.0, help="Least share of the likeliest's probability."),
    ] = None,
    repetition_penalty: Annotated[
        float, typer.Option("--repetition-penalty", help="Above 1: less of what was said.")
    ] = 1.0,
    stop: Annotated[list[str] | None, typer.Option("--stop", help="A text that ends an answer; several.")] = None,
    think_budget: Annotated[
        int | None, typer.Option("--think-budget", min=0, help="Tokens of thinking, then it is closed.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of sampling.")] = 0,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="Of a reply.")] = 512,
    tools_file: ToolsFile = None,
    index: IndexFile = None,
    constrain: Constrain = None,
    dtype: Annotated[DecodePrecision | None, typer.Option("--dtype", help=f"{_DTYPES} [auto].")] = None,
    backend: BackendName = None,
    url: Annotated[
        str | None, typer.Option("--url", help="An OpenAI-compatible API; --model is then a name it knows.")
    ] = None,
    key_variable: Annotated[
        str | None, typer.Option("--key-variable", metavar="NAME", help="With --url: the variable that holds the key.")
    ] = None,
    key_file: Annotated[
        Path | None, typer.Option("--key-file", help="With --url: a file of mode 0600 that holds the key.")
    ] = None,
    history: Annotated[bool, typer.Option("--history/--no-history", help="Keep what is typed for later chats.")] = True,
    home: Home = None,
) -> None:
    """Talk to a model. /help lists what can be typed."""
    from gradus.cli.chatting import SERVICE_TEMPERATURE, ChatOptions, local_loader, start_chat
    from gradus.cli.keyboard import history_file

    if url is None and (key_variable or key_file):
        raise ConfigError("--key-variable and --key-file belong to --url")
    if url is not None and (dtype, backend) != (None, None):
        raise ConfigError("--dtype and --backend are for models on this machine; what is behind --url has its own")
    # A service has a temperature of its own, which the API's default leaves to it.
    usual_temperature = 0.0 if url is None else SERVICE_TEMPERATURE
    options = ChatOptions(
        think=think,
        tools=declared(tools),
        system=system,
        temperature=usual_temperature if temperature is None else temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        stop=tuple(stop or ()),
        think_budget=think_budget,
        seed=seed,
        max_tokens=max_tokens,
        constrain=constrain,
    )
    asked = " ".join(question) if question else None
    with opened_tools(tools, index, tools_file) as toolbox:
        if url is not None:
            from gradus.cli.remote_chat import remote_loader

            load = remote_loader(url, toolbox, key_variable, key_file)
        else:
            load = local_loader(home_folder(home), toolbox, dtype, backend)
        start_chat(load, model, options, asked, history=history_file() if history else None)


@app.command()
def index(
    documents: Annotated[str, typer.Argument(metavar="PATH", help="A folder, file or pattern of documents.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The index to write.")] = Path("documents.index"),
    json: Json = False,
) -> None:
    """Make your own documents searchable, for the tool web_search."""
    from gradus.cli.searching import make_index

    make_index(documents, out, json)


@app.command()
def search(
    file: Annotated[Path, typer.Argument(metavar="INDEX", help="What gradus index wrote.")],
    query: Annotated[list[str], typer.Argument(help="What to look for.")],
    number: Annotated[int, typer.Option("-n", min=1, max=100, help="How many passages.")] = 4,
    json: Json = False,
) -> None:
    """Show what a search in an index finds."""
    from gradus.cli.searching import print_hits

    print_hits(file, " ".join(query), number, json)


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
    temperature: Annotated[float, typer.Option("--temperature", "-t", min=0.0)] = 0.0,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="Of an answer.")] = 512,
    constrain: Constrain = None,
    dtype: Annotated[DecodePrecision | None, typer.Option("--dtype", help=f"{_DTYPES} [fp32].")] = None,
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
    temperature: Annotated[float, typer.Option("--temperature", "-t", min=0.0)] = 0.7,
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


@data_app.command("stats")
def data_stats(corpus: CorpusName, home: Home = None, json: Json = False) -> None:
    """Documents and bytes by source, what was dropped and why, lengths."""
    from gradus.cli.data import print_stats

    print_stats(corpus, home_folder(home), json)


@data_app.command("inspect")
def data_inspect(
    corpus: CorpusName,
    number: Annotated[int, typer.Option("-n", min=1, help="How many documents.")] = 3,
    source: Annotated[str | None, typer.Option("--source", help="Of this source alone.")] = None,
    dropped: Annotated[
        str | None, typer.Option("--dropped", metavar="REASON", help='What was dropped so instead; "any" for all.')
    ] = None,
    validation: Annotated[bool, typer.Option("--validation", help="From the side that is held back.")] = False,
    full: Annotated[bool, typer.Option("--full", help="Whole texts.")] = False,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Another seed draws others.")] = 0,
    home: Home = None,
) -> None:
    """Show documents drawn from a corpus, or from what it dropped."""
    from gradus.cli.data import print_inspection

    print_inspection(corpus, home_folder(home), number, seed, source, dropped, validation, full)


@data_app.command("diff")
def data_diff(
    one: CorpusName,
    two: Annotated[str, typer.Argument(metavar="OTHER", help="Another corpus.")],
    home: Home = None,
    json: Json = False,
) -> None:
    """Compare two corpora: settings, and documents they share or not, by source."""
    from gradus.cli.data import print_diff

    print_diff(one, two, home_folder(home), json)


@data_app.command("trace")
def data_trace(
    corpus: CorpusName,
    key: Annotated[str, typer.Argument(metavar="ID|PLACE", help="A document's id or its start, or FILE[:LINE].")],
    home: Home = None,
) -> None:
    """Say where one document came from and where it went."""
    from gradus.cli.data import print_trace

    print_trace(corpus, key, home_folder(home))


@data_app.command("preview")
def data_preview(
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help="ROADMAP/STAGE of a pool, a file, folder or pattern, or preset:NAME."),
    ],
    filters: Annotated[
        list[str] | None, typer.Option("--filter", "-f", help="A filter's name; several may be given [all of them].")
    ] = None,
    number: Annotated[int, typer.Option("-n", min=0, help="Samples of each reason.")] = 2,
    max_rows: Annotated[int | None, typer.Option("--max-rows", min=1, help="Rows to read at most.")] = None,
    calls_may_end: Annotated[
        bool, typer.Option("--calls-may-end", help="Conversations may end with calls that have no results.")
    ] = False,
    home: Home = None,
    json: Json = False,
) -> None:
    """Show what each filter would remove from conversations, without writing anything."""
    from gradus.cli.previewing import print_preview

    print_preview(source, home_folder(home), filters or [], number, max_rows, calls_may_end, json)


@app.command()
def compare(
    first: Annotated[
        str,
        typer.Argument(
            metavar="A", help="ROADMAP/STAGE of an eval stage, or a file of --json; FILE#RUN for one of its runs."
        ),
    ],
    second: Annotated[str, typer.Argument(metavar="B", help="What is compared with it.")],
    home: Home = None,
    json: Json = False,
) -> None:
    """Say of each measure whether B is better than A, worse, or not resolved."""
    from gradus.cli import comparing

    comparing.compare(first, second, home_folder(home), json)


@app.command()
def report(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="A roadmap's name, or its folder in runs/.")],
    compare: Annotated[bool, typer.Option("--compare", help="Set the second run against the first.")] = False,
    out: Annotated[Path | None, typer.Option("--out", help="The file to write.")] = None,
    home: Home = None,
) -> None:
    """Write a roadmap's report again, or that of two: one HTML page that opens anywhere."""
    from gradus.cli.walking import print_report

    print_report(names, home_folder(home), out, compare)


@app.command()
def export(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="A roadmap's name, ROADMAP/STAGE or a folder; @STEP for a checkpoint."),
    ],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new folder for it.")],
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", "-f", help="transformers, gguf or ollama; several may be given [transformers]."),
    ] = None,
    gguf_types: Annotated[
        list[str] | None,
        typer.Option("--gguf-type", help="f32, f16, bf16, q8_0, q5_1 to q4_0, q6_k to q2_k; a file for each [f16]."),
    ] = None,
    dtype: Annotated[
        str, typer.Option("--dtype", help="Of transformers' weights: float32, bfloat16, float16.")
    ] = "float32",
    licence: Annotated[str | None, typer.Option("--licence", help="Of the weights, by its SPDX name.")] = None,
    languages: Annotated[list[str] | None, typer.Option("--language", help="Its code, such as en; several.")] = None,
    title: Annotated[str | None, typer.Option("--title", help="Of the model card.")] = None,
    system: Annotated[str | None, typer.Option("--system", help="What Ollama begins with.")] = None,
    prompts: Annotated[int, typer.Option("--prompts", min=1, help="Beginnings that both sides go on with.")] = 50,
    home: Home = None,
    json: Json = False,
) -> None:
    """Write a model for other programs, each of which must compute the same."""
    from gradus.cli.exporting import export_to_folder

    given = {
        "formats": formats, "gguf_types": gguf_types, "dtype": dtype, "licence": licence, "languages": languages,
        "title": title, "system": system, "prompts": prompts,
    }  # fmt: skip
    options = {name: value for name, value in given.items() if value is not None}
    export_to_folder(model, folder, home_folder(home), options, json)


@app.command()
def watch(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[ROADMAP]", help="A roadmap's name, its file, or its folder in runs/ [the newest]."),
    ] = None,
    page: Annotated[bool, typer.Option("--page", help="Serve the report as a page of this machine, live.")] = False,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Of --page; 0 takes a free one.")] = 0,
    once: Annotated[bool, typer.Option("--once", help="One look, then end.")] = False,
    home: Home = None,
) -> None:
    """Watch a walk as it goes on, of this or another process: steps, loss, samples, abilities."""
    from gradus.cli import watching

    watching.watch(name, home_folder(home), page=page, port=port, once=once)


@app.command()
def push(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A roadmap's name, its folder in runs/, or an exported folder.")
    ],
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="PLACE", help="hub:OWNER/NAME, file:///FOLDER, s3://... [the roadmap's place]."),
    ] = None,
    every: Annotated[
        str | None, typer.Option("--every", help='How far apart checkpoints are, such as "100 steps".')
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on while it is being walked, until Ctrl-C.")] = False,
    home: Home = None,
    json: Json = False,
) -> None:
    """Send a roadmap's artifacts, checkpoints and records to a place, or one exported folder to its root."""
    from gradus.cli.placing import push_home

    push_home(name, home_folder(home), to, every, follow, json)


@app.command()
def pull(
    place: Annotated[str, typer.Argument(metavar="PLACE", help="hub:OWNER/NAME, file:///FOLDER, s3://...")],
    into: Annotated[
        Path | None, typer.Option("--into", help="The home to fill [GRADUS_HOME, else the current folder].")
    ] = None,
    roadmap: Annotated[str | None, typer.Option("--roadmap", metavar="NAME", help="This one alone.")] = None,
    json: Json = False,
) -> None:
    """Bring what was pushed to a place to this machine; gradus run then goes on at the next step."""
    from gradus.cli.placing import pull_home

    pull_home(place, home_folder(into), roadmap, json)


@app.command()
def gc(
    roadmaps: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ROADMAP]...", help="What is needed: a file, a run's name, ROADMAP/STAGE [every run]."),
    ] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Delete what is listed.")] = False,
    home: Home = None,
    json: Json = False,
) -> None:
    """List the artifacts that nothing needs any more, with their sizes; --delete deletes them."""
    from gradus.cli import collecting

    collecting.collect(roadmaps or [], home_folder(home), delete, json)


@app.command()
def doctor(home: Home = None, json: Json = False) -> None:
    """Check this machine: versions, cores, memory, disk, what is missing and how to install it."""
    from gradus.cli.checkup import print_checkup

    print_checkup(home_folder(home), as_json=json)


def main() -> None:
    """The `gradus` command: one clear line for what goes wrong, a traceback only with --debug."""
    arguments = [a for a in sys.argv[1:] if a != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    if not debug:
        sys.excepthook = _one_line
    for stream in (sys.stdout, sys.stderr):
        # A terminal without our characters shows others in their place.
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")
    try:
        typer.main.get_command(app)(args=arguments, prog_name="gradus")
    except (GradusError, OSError) as error:
        told = error if isinstance(error, GradusError) else place_error(error)
        if debug or told is None:
            raise
        typer.echo(f"error: {harmless(redacted(str(told)))}", err=True)
        sys.exit(exit_code(told))


def exit_code(error: GradusError) -> int:
    """2 for a wrong roadmap or setting, 3 for a failed gate, 1 for anything else."""
    if isinstance(error, GateFailedError):
        return EXIT_GATE
    return EXIT_CONFIG if isinstance(error, ConfigError) else EXIT_ERROR


def _one_line(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A bug of ours, told shortly; --debug shows where."""
    typer.echo(
        redacted(f"internal error: {kind.__name__}: {error} (please report this; --debug shows where it happened)"),
        err=True,
    )


if __name__ == "__main__":
    main()
