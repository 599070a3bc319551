"""Right and spoiled calls for BFCL's questions, the same wherever this runs; the official checker's verdicts on them.

As a program it runs beside the checker itself and writes the golden file (a letter for each case, 1 right, 0 wrong):

    PYTHONPATH=FOLDER-WITH-bfcl_eval python tests/eval/bfcl_calls.py ../shared/data tests/eval/golden/bfcl_verdicts.json
"""

import copy
import gzip
import json
import random
import sys
import types
from pathlib import Path

CATEGORIES = (
    "simple_python", "simple_java", "simple_javascript", "multiple", "parallel", "parallel_multiple",
    "live_simple", "live_multiple", "live_parallel", "live_parallel_multiple",
)  # fmt: skip
SPOILED = 4  # cases for each question, besides the right one


def read(path):
    path = path if path.exists() else path.with_name(f"{path.name}.gz")
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in raw.decode().split("\n") if line.strip()]


def questions(folder, category):
    """(question, right calls) of a category."""
    name = f"BFCL_v4_{category}.json"
    rights = {row["id"]: row["ground_truth"] for row in read(folder / "bfcl/possible_answer" / name)}
    return [(row, rights[row["id"]]) for row in read(folder / "bfcl" / name)]


def cases(row, rights):
    """Lists of calls [name, arguments]: the right ones, then some with one thing or several changed."""
    draw = random.Random(row["id"])
    functions = {function["name"]: function for function in row["function"]}
    language = "java" if "simple_java_" in row["id"] else "js" if "simple_javascript_" in row["id"] else "python"
    yield _right(functions, rights, language, random.Random(0))
    for _ in range(SPOILED):
        calls = _right(functions, rights, language, draw)
        for _ in range(draw.choice((0, 1, 1, 2))):
            calls = _spoil(calls, functions, draw)
        yield calls


def _right(functions, rights, language, draw):
    calls = []
    for right in rights:
        ((name, arguments),) = right.items()
        declared = functions[name]["parameters"]["properties"]
        found = {}
        for key, options in arguments.items():
            given = [option for option in options if option != ""]
            if not given or ("" in options and draw.random() < 0.3):
                continue
            value = _unlisted(draw.choice(given))
            found[key] = value if language == "python" else _source(value, declared[key], language)
        calls.append([name, found])
    return calls


def _unlisted(value):
    """A dictionary of right values as one of the dictionaries that it stands for."""
    if isinstance(value, dict):
        return {key: options[0] for key, options in value.items() if options[0] != ""}
    if isinstance(value, list):
        return [_unlisted(item) for item in value]
    return value


def _source(value, declared, language):
    """A value as Java or JavaScript."""
    kind = declared["type"]
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        item = declared.get("items", {"type": "any"})
        parts = [
            _quoted(part, item["type"]) if not isinstance(part, list | dict) else json.dumps(part) for part in value
        ]
        inside = ", ".join(parts)
        if language == "js":
            return f"[{inside}]"
        return f"new ArrayList<>(Arrays.asList({inside}))" if kind == "ArrayList" else f"new Object[]{{{inside}}}"
    if isinstance(value, dict):
        if language == "js":
            return json.dumps(value)
        puts = "".join(f'put("{key}", {_quoted(part, "any")}); ' for key, part in value.items())
        return f"new HashMap<String, Object>() {{{{ {puts}}}}}"
    if isinstance(value, str):
        return value
    return f"{value}{ {'long': 'L', 'Bigint': 'n', 'float': 'f' if language == 'java' else ''}.get(kind, '') }"


def _quoted(value, kind):
    if isinstance(value, str):
        return f'"{value}"'
    return str(value).lower() if isinstance(value, bool) else f"{value}{'L' if kind == 'long' else ''}"


def _spoil(calls, functions, draw):
    calls = copy.deepcopy(calls)
    kind = draw.choice(("value", "value", "value", "drop", "name", "more", "count", "order", "harmless"))
    if kind == "count":
        return calls[:-1] if draw.random() < 0.5 else [*calls, *calls[:1]]
    if kind == "order":
        draw.shuffle(calls)
        return calls
    if not calls:
        return calls
    call = draw.choice(calls)
    if kind == "name":
        call[0] = draw.choice([*functions, "other.function"])
    elif kind == "more":
        call[1][draw.choice([*functions[draw.choice(list(functions))]["parameters"]["properties"], "unknown"])] = (
            "something"
        )
    elif call[1]:
        key = draw.choice(list(call[1]))
        if kind == "drop":
            del call[1][key]
        elif kind == "harmless":
            call[1][key] = _harmless(call[1][key], draw)
        else:
            call[1][key] = _other(call[1][key], draw)
    return calls


def _harmless(value, draw):
    if isinstance(value, str):
        return draw.choice((value.upper(), value.replace(" ", "-"), f"{value} ", value.replace('"', "'")))
    if isinstance(value, list):
        return [_harmless(item, draw) for item in value]
    if isinstance(value, dict):
        return {key: _harmless(item, draw) for key, item in value.items()}
    return int(value) if isinstance(value, float) and value == int(value) else value


def _other(value, draw):
    if isinstance(value, dict) and value and draw.random() < 0.8:
        key = draw.choice(list(value))
        return (
            {k: v for k, v in value.items() if k != key}
            if draw.random() < 0.4
            else value | {key: _other(value[key], draw)}
        )
    if isinstance(value, list) and value and draw.random() < 0.8:
        return draw.choice((value[:-1], value[::-1], [_other(value[0], draw), *value[1:]]))
    text = str(value)
    return draw.choice((text, f"{text}x", 7, 7.5, True, [value], {"a": value}, [], {}, "", None, f'"{text}"'))


def _verdicts(folder):
    """By category a letter for each case, of the official checker."""
    # Its table of models wants the packages of every service; of it only one switch is read.
    models = types.ModuleType("bfcl_eval.constants.model_config")
    models.MODEL_CONFIG_MAPPING = {"any": types.SimpleNamespace(underscore_to_dot=False)}
    sys.modules["bfcl_eval.constants.model_config"] = models
    from bfcl_eval.constants.enums import Language
    from bfcl_eval.eval_checker.ast_eval.ast_checker import ast_checker

    languages = {"simple_java": Language.JAVA, "simple_javascript": Language.JAVASCRIPT}
    found = {}
    for category in CATEGORIES:
        language = languages.get(category, Language.PYTHON)
        letters = []
        for row, rights in questions(folder, category):
            for calls in cases(row, rights):
                output = [{name: arguments} for name, arguments in calls]
                try:
                    valid = ast_checker(row["function"], output, rights, language, category, "any")["valid"]
                    letters.append("1" if valid else "0")
                except Exception as error:  # noqa: BLE001
                    print(category, row["id"], calls, repr(error), file=sys.stderr)
                    letters.append("x")
        found[category] = "".join(letters)
    return found


if __name__ == "__main__":
    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    out.write_text(json.dumps({"checker": "bfcl-eval 2026.3.23", "verdicts": _verdicts(folder)}, indent=1) + "\n")
