"""What `gradus data` takes. The work is in corpora.py and previewing.py, imported when a command runs."""

# Annotations are not postponed here: typer would compile and evaluate each of them four times at every start.
from typing import Annotated

import typer

from gradus.cli.options import Home, Json, home_folder

data_app = typer.Typer(
    help="Look into a corpus or a pool of conversations.", no_args_is_help=True, rich_markup_mode=None
)

CorpusName = Annotated[
    str, typer.Argument(metavar="CORPUS", help="ROADMAP/STAGE, a roadmap with one corpus, or an artifact's folder.")
]


@data_app.command("stats")
def data_stats(corpus: CorpusName, home: Home = None, json: Json = False) -> None:
    """Documents and bytes by source, what was dropped and why, lengths."""
    from gradus.cli.corpora import print_stats

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
    from gradus.cli.corpora import print_inspection

    print_inspection(corpus, home_folder(home), number, seed, source, dropped, validation, full)


@data_app.command("diff")
def data_diff(
    one: CorpusName,
    two: Annotated[str, typer.Argument(metavar="OTHER", help="Another corpus.")],
    home: Home = None,
    json: Json = False,
) -> None:
    """Compare two corpora: settings, and documents they share or not, by source."""
    from gradus.cli.corpora import print_diff

    print_diff(one, two, home_folder(home), json)


@data_app.command("trace")
def data_trace(
    corpus: CorpusName,
    key: Annotated[str, typer.Argument(metavar="ID|PLACE", help="A document's id or its start, or FILE[:LINE].")],
    home: Home = None,
) -> None:
    """Say where one document came from and where it went."""
    from gradus.cli.corpora import print_trace

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
