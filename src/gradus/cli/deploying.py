"""`gradus deploy`: repoint what a running server serves, once the gates have passed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from gradus.cli.serving import need_serve
from gradus.cli.walking import print_json
from gradus.core.errors import ConfigError, GateFailedError, did_you_mean
from gradus.core.home import LEDGER, RUNS
from gradus.core.ledger import Ledger
from gradus.roadmap.models import resolve_model
from gradus.roadmap.place import now
from gradus.roadmap.verdicts import gate_faults


def deploy(
    reference: str | None,
    home: Path,
    *,
    to: str | None,
    port: int | None,
    reason: str | None,
    back: bool,
    as_json: bool,
) -> None:
    """Have a server of this home serve a stage, or what it served before. Errors: GateFailedError, GradusError."""
    need_serve()
    if (reference is None) != back:
        raise ConfigError("give ROADMAP/STAGE to deploy, or --rollback to go back to what was served before")
    label = ""
    if reference is not None:
        label = _passed(reference, home, reason)
    server = _server(home, port)
    served = {row["name"]: row["label"] for row in _asked(server, {"do": "models"}, as_json)["models"]}
    name = _name(to, label, served)
    asked = {"do": "rollback", "name": name} if back else {"do": "deploy", "name": name, "reference": label}
    done = _asked(server, asked, as_json)
    stage, run = done["now"]["stage"], home / RUNS / done["now"]["label"].partition("/")[0]
    if run.is_dir():
        event = {"event": "deploy", "time": now(), "stage": stage, "fingerprint": done["now"]["fingerprint"]}
        Ledger(run / LEDGER).append(event | {"as": name, "rollback": back} | ({"override": reason} if reason else {}))
    if as_json:
        print_json(done)
    else:
        typer.echo(f"{name} is {done['now']['label']} from now on; gradus deploy --rollback goes back to "
                   f"{done['before']['label']}")  # fmt: skip


def _passed(reference: str, home: Path, reason: str | None) -> str:
    """ROADMAP/STAGE of a reference whose gates have passed. Errors: GateFailedError, ConfigError, ArtifactError."""
    if "@" in reference or (Path(reference).expanduser() / "config.json").is_file():
        raise ConfigError(f"{reference}: expected ROADMAP/STAGE, a finished stage: that is what gates judge")
    label = resolve_model(reference, home).label
    roadmap, _, stage = label.partition("/")
    faults = gate_faults(home / RUNS / roadmap, stage)
    if faults and reason is None:
        raise GateFailedError(
            f'{label} is not deployed: {"; ".join(faults)}. Deploy it all the same with --override "reason"'
        )
    return label


def _server(home: Path, port: int | None) -> Path:
    from gradus.serve.control import running_servers

    servers = running_servers(home)
    if not servers:
        raise ConfigError(f"no server of {home.resolve()} is running; start one: gradus serve MODEL")
    if port is None and len(servers) > 1:
        raise ConfigError(f"servers run at ports {', '.join(map(str, servers))}; choose one with --port")
    chosen = port or next(iter(servers))
    if chosen not in servers:
        raise ConfigError(f"no server of this home runs at port {chosen}; there are {', '.join(map(str, servers))}")
    return servers[chosen]


def _name(to: str | None, label: str, served: Mapping[str, str]) -> str:
    """The name to repoint: the one that was given, or the only one it can be. Errors: ConfigError."""
    if to is not None:
        if to not in served:
            hint = did_you_mean(to, served) or f"; there are {', '.join(served)}"
            raise ConfigError(f'no model "{to}" is served{hint}')
        return to
    roadmap = label.partition("/")[0]
    fitting = [name for name, now_label in served.items() if now_label.partition("/")[0] == roadmap]
    candidates = list(served) if len(served) == 1 else fitting
    if len(candidates) != 1:
        raise ConfigError(f"say which name is to mean it, with --to: served are {', '.join(served)}")
    return candidates[0]


def _asked(server: Path, asked: dict[str, str], quiet: bool) -> dict[str, Any]:
    """What a server has done, told as it goes on."""
    from gradus.serve.control import ask_server

    done: dict[str, Any] = {}
    for row in ask_server(server, asked):
        if "say" in row and not quiet:
            typer.echo(row["say"])
        done = row.get("done", done)
    return done
