"""Right and spoiled conversations for BFCL's multi-turn categories, the same wherever this runs; official verdicts.

As a program it runs beside the checker itself, on all of them, and writes the golden file (a letter for each case, 1
right, 0 wrong):

    PYTHONPATH=FOLDER-WITH-bfcl_eval python tests/eval/bfcl_conversations.py ../shared/data \
        tests/eval/golden/bfcl_conversations.json
"""

import ast
import copy
import json
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from bfcl_calls import questions, read

CATEGORIES = ("base", "miss_func", "miss_param", "long_context")
SERVICES = {
    "GorillaFileSystem": "gorilla_file_system", "MathAPI": "math_api", "MessageAPI": "message_api",
    "TwitterAPI": "posting_api", "TicketAPI": "ticket_api", "TradingBot": "trading_bot",
    "TravelAPI": "travel_booking", "VehicleControlAPI": "vehicle_control",
}  # fmt: skip


def conversations(folder, category):
    """(row, right calls as source, names of the parameters by function) of a category."""
    names = {}
    for file in SERVICES.values():
        for function in read(folder / "bfcl/multi_turn_func_doc" / f"{file}.json"):
            names[function["name"]] = list(function["parameters"]["properties"])
    return [(row, rights, names) for row, rights in questions(folder, f"multi_turn_{category}")]


def cases(row, rights, names):
    """(what is done, turns of answers of calls {"name", "arguments"}) of one conversation, the right ones first."""
    draw = random.Random(row["id"])
    right = [[_call(source, names) for source in turn] for turn in rights]
    alone = [[[call] for call in turn] for turn in right]
    yield "right", alone
    yield "at once", [[turn] if turn else [] for turn in right]
    yield "empty", [[] for _ in right]
    yield "cut short", alone[:-1]
    for kind in ("dropped", "changed", "extra", "unknown", "swapped", "turned", "repeated", "early"):
        turns = copy.deepcopy(alone)
        _spoil(turns, kind, draw, names)
        yield kind, turns


def _call(source, names):
    found = ast.parse(source.strip(), mode="eval").body
    values = dict(zip(names[found.func.id], map(ast.literal_eval, found.args), strict=False))
    named = {keyword.arg: ast.literal_eval(keyword.value) for keyword in found.keywords}
    # Through JSON, as a model writes it: a tuple becomes a list.
    return json.loads(json.dumps({"name": found.func.id, "arguments": values | named}))


def _spoil(turns, kind, draw, names):
    turn = draw.choice([turn for turn in turns if turn])
    place = draw.randrange(len(turn))
    if kind == "dropped":
        del turn[place]
    elif kind == "changed":
        calls = [call for turn in turns for answer in turn for call in answer if call["arguments"]]
        if calls:
            arguments = draw.choice(calls)["arguments"]
            arguments[key] = _other(arguments[key := draw.choice(sorted(arguments))])
    elif kind == "extra":
        name = draw.choice(
            ["ls", "pwd", "displayCarStatus", "get_stock_info", "posting_get_login_status", "mkdir", "mean"]
        )
        turn.insert(place, [{"name": name, "arguments": dict.fromkeys(names[name], "x")}])
    elif kind == "unknown":
        name, arguments = draw.choice([
            ("print", {}), ("_load_scenario", {"scenario": {}}), ("exit", {}), ("no_such_thing", {"a": [1, None]}),
            ("GorillaFileSystem.ls", {}), ("ls", {"a b": 1}), ("root", {}),
        ])  # fmt: skip
        turn.insert(place, [{"name": name, "arguments": arguments}])
    elif kind == "swapped":
        first, second = draw.randrange(len(turn)), draw.randrange(len(turn))
        turn[first], turn[second] = turn[second], turn[first]
    elif kind == "turned":
        turn.reverse()
    elif kind == "repeated":
        turn.insert(place, copy.deepcopy(turn[place]))
    else:  # the calls of one turn are made in the one before
        number = next(number for number, found in enumerate(turns) if found is turn)
        if number:
            turns[number - 1] += turn
            turns[number] = []


def _other(value):
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, list):
        return value[:-1]
    return value + "x" if isinstance(value, str) else {}


def _source(call):
    """As bfcl-eval's handlers spell a call that was written as JSON."""
    return f"{call['name']}({','.join(f'{key}={value!r}' for key, value in call['arguments'].items())})"


def _verdicts(folder):
    from bfcl_eval.eval_checker.multi_turn_eval.multi_turn_checker import multi_turn_checker

    found = {}
    for category in CATEGORIES:
        letters = []
        for row, rights, names in conversations(folder, category):
            for kind, turns in cases(row, rights, names):
                spelled = [[[_source(call) for call in answer] for answer in turn] for turn in turns]
                # Its runner holds this against a conversation before the checker is asked.
                if len(spelled) != len(rights):
                    letters.append("0")
                    continue
                # It keeps what the services hold by the name of a model, for as long as it runs.
                verdict = multi_turn_checker(spelled, rights, row, category, f"model {kind}".replace(" ", "_"))
                letters.append("1" if verdict["valid"] else "0")
        found[category] = "".join(letters)
    return found


if __name__ == "__main__":
    data, out = Path(sys.argv[1]), Path(sys.argv[2])
    out.write_text(json.dumps({"checker": "bfcl-eval 2026.3.23", "verdicts": _verdicts(data)}, indent=1) + "\n")
