"""What `gradus serve` and its `keys` take. The work is in serving.py, imported when a command runs."""

# Annotations are not postponed here: typer would compile and evaluate each of them four times at every start.
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from gradus.cli.options import BackendName, Constrain, Home, Json, home_folder
from gradus.cli.tools import IndexFile, Tools, ToolsFile, opened_tools
from gradus.model.precision import DecodePrecision

AccountName = Annotated[str, typer.Argument(metavar="NAME", help="Who is to hold the key.")]


class _StartFirst(TyperGroup):
    """`gradus serve MODEL` means `gradus serve start MODEL`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["start", *args]
        return super().parse_args(ctx, args)


serve_app = typer.Typer(
    cls=_StartFirst,
    help="Answer OpenAI-compatible requests and show the chat page: gradus serve MODEL.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
keys_app = typer.Typer(help="Accounts by key.", no_args_is_help=True, rich_markup_mode=None)
serve_app.add_typer(keys_app, name="keys")


@serve_app.command()
def start(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]MODEL...",
            help="A roadmap's name, ROADMAP/STAGE or a folder, and by which name clients ask for it [MODEL]. "
            "The first is the default.",
        ),
    ],
    host: Annotated[str, typer.Option("--host", help="The address to listen at; others need keys.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", "-p", min=0, max=65535, help="0: any free one.")] = 8000,
    dtype: Annotated[
        DecodePrecision | None,
        typer.Option("--dtype", help="Of the weights, as for chat [fp32: every answer as if it were alone]."),
    ] = None,
    backend: BackendName = None,
    device: Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1, mps.")] = "cpu",
    compile: Annotated[
        bool,
        typer.Option(
            "--compile",
            help="Compile decoding steps, for a GPU with small models (not yet run on one); answers are then alike up "
            "to rounding.",
        ),
    ] = False,
    tools: Tools = "all",
    tools_file: ToolsFile = None,
    index: IndexFile = None,
    run_tools: Annotated[
        str | None,
        typer.Option("--run-tools", help="Of these, with commas: run for clients that do not ask for any [none]."),
    ] = None,
    constrain: Constrain = None,
    slots: Annotated[
        int | None, typer.Option("--slots", min=1, help="Replies in the making at once, a model [8].")
    ] = None,
    max_waiting: Annotated[
        int | None, typer.Option("--max-waiting", min=0, help="Requests that may wait for a slot [64].")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", min=1, help="Of a reply at most [4096].")] = None,
    temperature: Annotated[
        float | None, typer.Option("--temperature", "-t", min=0.0, help="Where a request names none [0.7].")
    ] = None,
    title: Annotated[str | None, typer.Option("--title", help="Of the chat page [gradus].")] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option("--allow-host", help="A name of this server besides localhost; several.")
    ] = None,
    allow_origin: Annotated[
        list[str] | None, typer.Option("--allow-origin", help="Another site whose pages may call it; several.")
    ] = None,
    drain_seconds: Annotated[
        float | None, typer.Option("--drain-seconds", min=0.0, help="For replies in the making, at the end [30].")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Load the models, have each answer once, and end.")] = False,
    home: Home = None,
) -> None:
    """Serve models until Ctrl-C or SIGTERM (the word start may be left out)."""
    from gradus.cli.serving import start_server

    start_server(
        models,
        home_folder(home),
        host=host,
        port=port,
        dtype=dtype,
        backend=backend,
        device=device,
        compile=compile,
        tools=lambda: opened_tools(tools, index, tools_file),
        constrain=constrain,
        check=check,
        settings={
            "num_slots": slots,
            "max_waiting": max_waiting,
            "max_tokens": max_tokens,
            "temperature": temperature,
            "run_tools": None if run_tools is None else list(dict.fromkeys(map(str.strip, run_tools.split(",")))),
            "title": title,
            "hosts": allow_host,
            "origins": allow_origin,
            "drain_seconds": drain_seconds,
        },
    )


def deploy(
    model: Annotated[
        str | None, typer.Argument(metavar="ROADMAP/STAGE", help="A finished stage whose gates have passed.")
    ] = None,
    to: Annotated[
        str | None, typer.Option("--to", metavar="NAME", help="The served name that is to mean it [the only one].")
    ] = None,
    port: Annotated[int | None, typer.Option("--port", "-p", help="Of the server [the only one of this home].")] = None,
    override: Annotated[
        str | None,
        typer.Option("--override", metavar="REASON", help="Deploy past failed gates; the reason is recorded."),
    ] = None,
    rollback: Annotated[bool, typer.Option("--rollback", help="Go back to what was served before.")] = False,
    home: Home = None,
    json: Json = False,
) -> None:
    """Have a running server serve another stage: loaded and checked beside the old one, which then ends its replies."""
    from gradus.cli import deploying

    deploying.deploy(
        model, home_folder(home), to=to, port=port, reason=override, back=rollback, as_json=json
    )  # fmt: skip


@keys_app.command("add")
def keys_add(
    name: AccountName,
    requests_per_minute: Annotated[
        float | None,
        typer.Option("--requests-per-minute", min=0.01, help="A minute's worth may come at once [no bound]."),
    ] = None,
    tokens_per_minute: Annotated[
        float | None, typer.Option("--tokens-per-minute", min=1, help="Read and written [no bound].")
    ] = None,
    tokens_per_day: Annotated[
        int | None, typer.Option("--tokens-per-day", min=1, help="Read and written, days in UTC [no bound].")
    ] = None,
    max_concurrent: Annotated[
        int | None, typer.Option("--max-concurrent", min=1, help="Requests at once [no bound].")
    ] = None,
    sees_all: Annotated[
        bool, typer.Option("--sees-all", help="/metrics tells it the tokens of every account, not its own alone.")
    ] = False,
    home: Home = None,
    json: Json = False,
) -> None:
    """Make a key and print it, this once; a running server takes it at once. Without bounds it may use all."""
    from gradus.cli.serving import add_key

    settings = {
        "requests_per_minute": requests_per_minute,
        "tokens_per_minute": tokens_per_minute,
        "tokens_per_day": tokens_per_day,
        "max_concurrent": max_concurrent,
        "sees_all": sees_all,
    }
    add_key(home_folder(home), name, settings, json)


@keys_app.command("remove")
def keys_remove(name: AccountName, home: Home = None) -> None:
    """Take an account away; a running server refuses its key at once."""
    from gradus.cli.serving import remove_key

    remove_key(home_folder(home), name)


@keys_app.command("list")
def keys_list(home: Home = None, json: Json = False) -> None:
    """Show accounts and their bounds."""
    from gradus.cli.serving import list_keys

    list_keys(home_folder(home), json)
