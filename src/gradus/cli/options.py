"""Options that several commands take, and the home folder that `--home` means."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gradus.conversation.constraint import Constraint
from gradus.core.home import usual_home
from gradus.model.precision import Backend

DTYPES = "Of the weights: fp32, bf16, fp16, int8 (processors), or auto, what is fastest here"

_MODEL = typer.Option("--model", "-m", help="A roadmap's name, ROADMAP/STAGE or a folder; @STEP picks a checkpoint.")
ModelName = Annotated[str, _MODEL]
ModelNameOrNone = Annotated[str | None, _MODEL]  # in "ModelName | None" typer sees neither -m nor the help
Home = Annotated[
    Path | None,
    typer.Option("--home", help="Folder of artifacts/ and runs/ [GRADUS_HOME, else the current folder]."),
]
Constrain = Annotated[
    Constraint | None,
    typer.Option("--constrain", help="Hold answers to sound tool calls, or to a sound turn [what the model writes]."),
]
BackendName = Annotated[
    Backend | None,
    typer.Option(
        "--backend",
        help="Who computes: torch, or llamacpp, on the processor [llamacpp of a .gguf file, else torch].",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def home_folder(home: Path | None) -> Path:
    """Where artifacts and runs lie: --home, GRADUS_HOME, or the current folder."""
    return usual_home() if home is None else home.expanduser()
