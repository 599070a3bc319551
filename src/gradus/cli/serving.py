"""`gradus serve`: between the command line and the serve room."""

from __future__ import annotations

import importlib.util
import json
import logging
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import typer

from gradus.cli.backend import find_model, open_engine
from gradus.cli.walking import print_json
from gradus.conversation.constraint import Constraint
from gradus.core.artifact import MANIFEST
from gradus.core.errors import ConfigError, MissingPackageError
from gradus.core.home import DEPLOYED, KEYS_FILE, USAGE_FILE
from gradus.core.quantity import format_bytes
from gradus.core.settings import load_settings
from gradus.model.precision import Backend, DecodePrecision
from gradus.roadmap.models import ModelReference
from gradus.roadmap.workers import set_threads
from gradus.serve.deployments import Deployments, ModelSource
from gradus.serve.handover import vllm_command
from gradus.serve.keys import Accounts, add_account, read_accounts, remove_account
from gradus.serve.settings import ServeSettings

if TYPE_CHECKING:
    from gradus.serve.models import ServedModel
    from gradus.tools.toolbox import ToolBox

_MOST_NAME_CHARACTERS = 100


def start_server(
    models: Sequence[str],
    home: Path,
    *,
    host: str,
    port: int,
    dtype: DecodePrecision | None,
    backend: Backend | None,
    device: str,
    compile: bool,
    tools: Callable[[], AbstractContextManager[ToolBox]],
    constrain: Constraint | None,
    check: bool,
    settings: dict[str, Any],
) -> None:
    """Serve models until told to end. tools: opens the tools that are offered."""
    need_serve()
    set_threads(None)
    options = load_settings(ServeSettings, {k: v for k, v in settings.items() if v is not None}, "gradus serve")
    given: dict[str, str] = {}
    for text in models:
        name, reference = _named(text)
        if name in given:
            raise ConfigError(f'two models are called "{name}"; give one another name: NAME=MODEL')
        given[name] = reference
    deployments = Deployments(home / DEPLOYED)
    sources = [_served(name, reference, home, deployments) for name, reference in given.items()]
    accounts = Accounts(home / KEYS_FILE)
    from gradus.serve.control import Control
    from gradus.serve.server import bind, check_models, open_state, run_server

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)

    def load(source: ModelSource) -> ServedModel:
        return load_model(source, home, toolbox, options, dtype, backend, device, compile, constrain)

    # The address first: it is refused in no time, and models take theirs.
    with bind(host, 0 if check else port, accounts) as listening, tools() as toolbox:
        toolbox.schemas(options.run_tools)  # a name that there is not is told now, not to the first who asks
        state = open_state(sources, load, options, accounts, home / USAGE_FILE)
        for model in state.models:
            typer.echo(f"{model.source.name}: {model.source.label} ({model.source.folder})")
            if check and (command := vllm_command(model.source)):
                typer.echo(f"  with vLLM: {command}")
        if said := memory_warning(list(state.models), options.num_slots):
            typer.echo(f"warning: {said}", err=True)
        if check:
            check_models(state)
            return
        at = f"http://{'localhost' if host == '127.0.0.1' else host}:{listening.getsockname()[1]}"
        typer.echo(f"the chat page is at {at}/ and the API at {at}/v1")
        control = Control(
            state.models,
            given,
            deployments,
            lambda name, reference: model_source(name, reference, home),
            home,
            listening.getsockname()[1],
        )
        run_server(state, control, listening, typer.echo)


def need_serve() -> None:
    """Errors: MissingPackageError where a package of the extra is absent."""
    for package in ("starlette", "uvicorn", "prometheus_client"):
        if importlib.util.find_spec(package) is None:
            raise MissingPackageError(package, "serve")


def _named(text: str) -> tuple[str, str]:
    """(name, reference) of NAME=MODEL, or of MODEL, which is then its own name. Errors: ConfigError."""
    name, found, reference = text.partition("=")
    if not found:
        name, reference = Path(text).name if text.startswith((".", "/", "~")) else text, text
    if not name.strip() or len(name) > _MOST_NAME_CHARACTERS or not reference:
        raise ConfigError(f'"{text}": expected NAME=MODEL with a name of at most {_MOST_NAME_CHARACTERS} characters')
    return name, reference


def _served(name: str, reference: str, home: Path, deployments: Deployments) -> ModelSource:
    """What is served under a name: what was deployed there since it was given this reference, else that."""
    deployed = deployments.find(name)
    if deployed is None or deployed.given != reference:
        return model_source(name, reference, home)
    typer.echo(f"{name}: {deployed.now.label}, deployed in place of {reference} (see {home / DEPLOYED})")
    return deployed.now


def model_source(name: str, reference: str, home: Path) -> ModelSource:
    """What a reference means now. Errors: ArtifactError."""
    model = find_model(reference, home)
    facts = _manifest(model.tokenizer.parent)
    return ModelSource(
        name=name,
        reference=reference,
        label=model.label,
        folder=model.folder.resolve(),
        tokenizer=model.tokenizer.resolve(),
        stage=str(facts.get("name") or ""),
        kind=str(facts.get("kind") or ""),
        fingerprint=str(facts.get("fingerprint") or ""),
    )


def _manifest(folder: Path) -> dict[str, Any]:
    """The manifest of the artifact that a model lies in; empty where it lies in none."""
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def load_model(
    source: ModelSource,
    home: Path,
    toolbox: ToolBox,
    options: ServeSettings,
    dtype: DecodePrecision | None,
    backend: Backend | None,
    device: str,
    compile: bool,
    constrain: Constraint | None,
) -> ServedModel:
    """Bring a model up."""
    from gradus.engine.service import EngineService
    from gradus.serve.models import ServedModel

    model = ModelReference(source.folder, source.tokenizer, source.label)
    engine, _ = open_engine(
        model, home, backend=backend, precision=dtype, usual="fp32", toolbox=toolbox, device=device, compile=compile
    )
    service = EngineService(engine, num_slots=options.num_slots, max_waiting=options.max_waiting)
    return ServedModel(source, engine, service, constrain)


def memory_warning(models: Sequence[ServedModel], slots: int) -> str | None:
    """Said where keys and values, with every slot as long as the context, outgrow what is free; None else.

    Of models on processors, whose memory is the machine's own.
    """
    here = [model for model in models if model.engine.decoder.device.type == "cpu"]
    most = sum(model.service.stats().most_cache_bytes for model in here)
    free = psutil.virtual_memory().available
    if most <= free:
        return None
    longest = max(model.engine.context for model in here)
    return (
        f"{slots} replies at once of up to {longest:,} tokens can take {format_bytes(most)}, and {format_bytes(free)} "
        "are free; fewer with --slots"
    )


# Keys


def add_key(home: Path, name: str, settings: dict[str, float | None], as_json: bool) -> None:
    """Make a key and print it, this once."""
    file = home / KEYS_FILE
    key = add_account(file, name, **settings)
    if as_json:
        print_json({"name": name, "key": key, "file": str(file)})
        return
    typer.echo(key)
    typer.echo(f"the key of {name}, shown this once; {file} keeps its digest", err=True)


def remove_key(home: Path, name: str) -> None:
    """Take a key's account away."""
    remove_account(home / KEYS_FILE, name)
    typer.echo(f"{name} is removed; its key is refused from now on")


def list_keys(home: Path, as_json: bool) -> None:
    """Print the accounts and their bounds."""
    accounts = read_accounts(home / KEYS_FILE)
    rows = [account.model_dump(mode="json", exclude_defaults=True, exclude={"sha256"}) for account in accounts]
    if as_json:
        print_json({"accounts": rows})
    elif not rows:
        typer.echo("no accounts; make one with: gradus serve keys add NAME")
    for row in [] if as_json else rows:
        bounds = ", ".join(
            f"{name.replace('_', ' ')} {value:g}" for name, value in row.items() if name not in {"name", "sees_all"}
        )
        typer.echo(f"{row['name']}: {bounds or 'no bounds'}{'; sees all' if 'sees_all' in row else ''}")
