"""The command line: what each command takes. The work is in the other files, imported when a command runs."""

# Annotations are not postponed here: typer would compile and evaluate each of them four times at every start.
import io
import os
import sys
from pathlib import Path
from types import TracebackType
from typing import Annotated

import typer

from gradus.cli.data import data_app
from gradus.cli.eval import eval_app
from gradus.cli.options import DTYPES, BackendName, Constrain, Home, Json, ModelNameOrNone, home_folder
from gradus.cli.sections import Sectioned
from gradus.cli.serve import deploy, serve_app
from gradus.cli.tools import IndexFile, Tools, ToolsFile, declared, opened_tools
from gradus.core.errors import ConfigError, GateFailedError, GradusError
from gradus.core.files import is_disk_full, place_error
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
app.add_typer(eval_app, name="eval")
app.add_typer(data_app, name="data")
app.add_typer(serve_app, name="serve")
app.command()(deploy)

RoadmapFile = Annotated[Path, typer.Argument(metavar="FILE", help="The roadmap (.toml).")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[STAGE.KEY=VALUE]...", help="Settings that replace the file's, in TOML syntax."),
]
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
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="STAGE", help="Run this stage alone; several times: these.")
    ] = None,
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
        file, overrides or [], home_folder(home), only=only or [], smoke=smoke, reason=override, as_json=json,
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
    model: ModelNameOrNone = None,
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
    top_k: Annotated[int | None, typer.Option("--top-k", min=1, help="Draw from the K likeliest tokens [all].")] = None,
    top_p: Annotated[
        float | None,
        typer.Option("--top-p", min=0.0, max=1.0, help="Draw from the likeliest tokens of this share together [all]."),
    ] = None,
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
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="Of sampling [0; with --url the service's].")
    ] = None,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="Of a reply.")] = 512,
    tools_file: ToolsFile = None,
    index: IndexFile = None,
    constrain: Constrain = None,
    dtype: Annotated[DecodePrecision | None, typer.Option("--dtype", help=f"{DTYPES} [auto].")] = None,
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
    from gradus.cli.chatting import ChatOptions, local_loader, start_chat, unnamed_model
    from gradus.cli.keyboard import history_file

    if model is None and url is not None:
        raise ConfigError("--url needs --model NAME, a name that the service knows")
    if model is None:
        raise unnamed_model(question or [], home_folder(home))
    if url is None and (key_variable or key_file):
        raise ConfigError("--key-variable and --key-file belong to --url")
    if url is not None and (dtype, backend) != (None, None):
        raise ConfigError("--dtype and --backend are for models on this machine; what is behind --url has its own")
    options = ChatOptions(
        think=think,
        tools=declared(tools),
        system=system,
        temperature=0.0 if temperature is None and url is None else temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        stop=tuple(stop or ()),
        think_budget=think_budget,
        seed=seed or 0,
        max_tokens=max_tokens,
        constrain=constrain,
    )
    asked = " ".join(question) if question else None
    with opened_tools(tools, index, tools_file) as toolbox:
        if url is not None:
            from gradus.cli.remote_chat import remote_loader

            load = remote_loader(url, toolbox, key_variable, key_file, sends_seed=seed is not None)
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
    _open_what_is_closed()
    for stream in (sys.stdout, sys.stderr):
        # A terminal without our characters shows others in their place; files get their numbers, so that none is lost.
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace" if stream.isatty() else "backslashreplace")
    try:
        typer.main.get_command(app)(args=arguments, prog_name="gradus")
    except (GradusError, OSError, RuntimeError) as error:
        told = _told(error)
        if debug or told is None:
            raise
        typer.echo(f"error: {harmless(redacted(str(told)))}", err=True)
        sys.exit(exit_code(told))


def _open_what_is_closed() -> None:
    """Streams that the caller closed, as `>&-` does, are None to Python; then what is said goes nowhere."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 (open until the end)


def _told(error: Exception) -> GradusError | None:
    """An error as the user can act on it; None for what is a bug of ours."""
    if isinstance(error, OSError):
        if error.filename is None and is_disk_full(error):
            return GradusError("no space is left for what is written, the output or a file; free some space and retry")
        return place_error(error)
    if str(error) == "Could not determine home directory.":  # pathlib's words
        return ConfigError("~ means no folder, since this user has none; set HOME, or write the path out")
    return error if isinstance(error, GradusError) else None


def exit_code(error: GradusError) -> int:
    """2 for a wrong roadmap or setting, 3 for a failed gate, 1 for anything else."""
    if isinstance(error, GateFailedError):
        return EXIT_GATE
    return EXIT_CONFIG if isinstance(error, ConfigError) else EXIT_ERROR


def _one_line(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A bug of ours, told shortly; --debug shows where."""
    told = f"internal error: {kind.__name__}: {error} (please report this; --debug shows where it happened)"
    typer.echo(harmless(redacted(told)), err=True)


if __name__ == "__main__":
    main()
