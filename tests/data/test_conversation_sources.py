"""Rows of pools from files, parquet and the Hub; each ready set read from a stand-in with the columns of its card."""

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_server import HubServer

from gradus.conversation.messages import Conversation, Message, Pair, ToolCall
from gradus.conversation.record_shapes import SHAPE_NAMES
from gradus.conversation.records import Imported, Quarantined
from gradus.core.errors import DataError
from gradus.data import hub as hub_module
from gradus.data.conversation_presets import CONVERSATION_PRESETS, PAIRS
from gradus.data.conversation_sources import AnyPoolSource, PoolFiles, PoolHub, PoolPreset, read_pool_source
from gradus.roadmap.plan import choose_device, plan_roadmap
from gradus.roadmap.progress import QuietProgress
from gradus.roadmap.run import walk
from gradus.roadmap.schema import load_roadmap


def rows_of(source: AnyPoolSource, *files: Path) -> list[Imported]:
    return list(read_pool_source(source, files, seed=1, run_tool=None))


def parquet(rows: list[dict[str, Any]]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink, row_group_size=2)
    return sink.getvalue()


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def as_list(rows: list[dict[str, Any]]) -> bytes:
    return json.dumps(rows, indent=1).encode()


USER, ANSWER = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
R1 = "<think>\nhm\n</think>\n\nb"
TAGGED = "<|begin_of_thought|>hm<|end_of_thought|><|begin_of_solution|>b<|end_of_solution|>"
ASKS = "Use <|begin_of_thought|> and <|end_of_thought|>."
PLAIN, THOUGHT = (
    (Message("user", "a"), Message("assistant", "b")),
    (Message("user", "a"), Message("assistant", "b", "hm")),
)


def from_to(answer: str) -> list[dict[str, str]]:
    return [{"from": "user", "value": "a"}, {"from": "assistant", "value": answer}]


# By the card of each set: the path of a file, how it is written, one row with its columns, and what it becomes.
Card = tuple[str, Callable[[list[dict[str, Any]]], bytes], dict[str, Any], object]
CARDS: dict[str, Card] = {
    "smoltalk": ("data/all/train-00000-of-00009.parquet", parquet, {"messages": [USER, ANSWER], "source": "s"}, PLAIN),
    "smol-smoltalk": ("data/train-00000-of-00004.parquet", parquet, {"messages": [USER, ANSWER], "source": "s"}, PLAIN),
    "ultrachat": (
        "data/train_sft-00000-of-00003-a3ecf92756993583.parquet",
        parquet,
        {"prompt": "a", "prompt_id": "i", "messages": [USER, ANSWER]},
        PLAIN,
    ),
    "sharegpt": (
        "ShareGPT_V3_unfiltered_cleaned_split.json",
        as_list,
        {"id": "x", "conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
        PLAIN,
    ),
    "glaive-function-calling": (
        "glaive-function-calling-v2.json",
        as_list,
        {"system": "SYSTEM: Be kind.", "chat": "USER: a\n\n\nASSISTANT: b <|endoftext|>\n\n\n"},
        (Message("system", "Be kind."), *PLAIN),
    ),
    "gsm8k": (
        "main/train-00000-of-00001.parquet",
        parquet,
        {"question": "a", "answer": "<<1+1=2>>2\n#### 2"},
        (
            Message("user", "a"),
            Message("assistant", "", tool_calls=(ToolCall("call_1", "calculator", {"expression": "1+1"}),)),
            Message("tool", "2", tool_call_id="call_1"),
            Message("assistant", "2\nThe answer is 2."),
        ),
    ),
    "aqua": (
        "raw/train-00000-of-00001.parquet",
        parquet,
        {"question": "a", "options": ["A)1", "B)2"], "rationale": "b", "correct": "B"},
        (Message("user", "a\n\nA) 1\nB) 2"), Message("assistant", "b\n\nThe answer is B.")),
    ),
    "math": (
        "algebra/train-00000-of-00001.parquet",
        parquet,
        {"problem": "a", "level": "Level 5", "type": "Algebra", "solution": "b"},
        PLAIN,
    ),
    "openr1-math": (
        "data/train-00000-of-00010.parquet",
        parquet,
        {"problem": "p", "solution": "s", "generations": [R1], "messages": [USER, {**ANSWER, "content": R1}]},
        THOUGHT,
    ),
    "openthoughts": (
        "data/train-00000-of-00006.parquet",
        parquet,
        {"system": ASKS, "conversations": from_to(TAGGED)},
        THOUGHT,
    ),
    "limo": (
        "limo.jsonl",
        lines,
        {"question": "a", "solution": "hm\n\n**Final Answer**\n\\boxed{5}", "answer": "5"},
        (Message("user", "a"), Message("assistant", "**Final Answer**\n\\boxed{5}", "hm")),
    ),
    "openmathreasoning": (
        "data/cot-00000-of-00144.parquet",
        parquet,
        {"expected_answer": "b", "problem": "a", "generated_solution": R1, "inference_mode": "cot"},
        THOUGHT,
    ),
    "numinamath-cot": (
        "data/train-00000-of-00005.parquet",
        parquet,
        {"source": "cn_k12", "problem": "a", "solution": "b", "messages": [USER, ANSWER]},
        PLAIN,
    ),
    "sky-t1": ("Sky-T1_data_17k.json", as_list, {"system": ASKS, "conversations": from_to(TAGGED)}, THOUGHT),
    "capybara-pairs": (
        "data/train-00000-of-00001.parquet",
        parquet,
        {"prompt": "a", "chosen": [USER, ANSWER], "rejected": [USER, {**ANSWER, "content": "c"}]},
        PLAIN[:1],
    ),
    "orca-pairs": (
        "data/train-00000-of-00001.parquet",
        parquet,
        {"system": "s", "input": "a", "chosen": "b", "rejected": "c", "status": "swapped"},
        (Message("system", "s"), Message("user", "a")),
    ),
    "ultrafeedback-pairs": (
        "data/train_prefs-00000-of-00001.parquet",
        parquet,
        {
            "prompt": "a",
            "chosen": [USER, ANSWER],
            "rejected": [USER, {**ANSWER, "content": "c"}],
            "messages": [USER, ANSWER],
        },
        PLAIN[:1],
    ),
}
CONFIGS = {"smoltalk": "all", "openr1-math": "default", "openthoughts": "default"}


def serve(hub: HubServer, name: str, rows: list[dict[str, Any]] | None = None) -> None:
    preset = CONVERSATION_PRESETS[name]
    path, written, row, _ = CARDS[name]
    files: dict[str, bytes | str] = {path: written(rows or [row])}
    if name == "math":
        files |= {
            f"{subject.split('/')[0]}/train-00000-of-00001.parquet": parquet([row]) for subject in preset.source.path
        }
    if name in CONFIGS:
        config = (
            f"- config_name: {CONFIGS[name]}\n  data_files:\n  - split: train\n    path: {Path(path).parent}/train-*"
        )
        files["README.md"] = f"---\nconfigs:\n{config}\n---\n"
    hub.dataset(preset.source.repo, files)


@pytest.mark.parametrize("name", CONVERSATION_PRESETS)
def test_a_ready_set_reads_what_its_card_says(hub: HubServer, name: str) -> None:
    preset = CONVERSATION_PRESETS[name]
    serve(hub, name)
    found = rows_of(PoolPreset(name=name))
    assert len(found) == (7 if name == "math" else 1)
    assert found[0].source == name
    if preset.makes == PAIRS:
        assert isinstance(found[0], Pair)
        assert (found[0].prompt.messages, found[0].rejected) == (CARDS[name][3], (Message("assistant", "c"),))
    else:
        assert isinstance(found[0], Conversation), found[0]
        assert found[0].messages == CARDS[name][3]


def test_the_table_of_ready_sets_is_complete() -> None:
    assert set(CARDS) == set(CONVERSATION_PRESETS)
    for name, preset in CONVERSATION_PRESETS.items():
        assert preset.licence
        assert re.fullmatch(r"https://huggingface.co/datasets/[\w.-]+/[\w.-]+", preset.homepage)
        assert preset.source.shape in SHAPE_NAMES
        assert preset.source.name == name


def test_only_the_columns_of_a_ready_set_are_fetched(hub: HubServer) -> None:
    row = CARDS["openr1-math"][2]
    serve(hub, "openr1-math", [{**row, "generations": ["x" * 3_000_000 + str(i)]} for i in range(4)])
    hub.requests.clear()
    assert len(rows_of(PoolPreset(name="openr1-math"))) == 4
    fetched = sum(
        int(end) - int(start) + 1
        for request in hub.requests
        if request.range
        for start, end in [re.findall(r"(\d+)-(\d+)", request.range)[0]]
    )
    assert fetched < 9_000_000  # whole blocks of 2 MB around what is read, of 12 MB


def test_rows_are_limited_after_what_where_leaves_out(hub: HubServer) -> None:
    rows = [
        {"input": f"q{i}", "chosen": "b", "rejected": "c", "status": "tie" if i % 2 else "unchanged"} for i in range(8)
    ]
    serve(hub, "orca-pairs", [{**row, "system": ""} for row in rows])
    found = rows_of(PoolPreset(name="orca-pairs", max_rows=3))
    assert [f.prompt.messages[0].content for f in found if isinstance(f, Pair)] == ["q0", "q2", "q4"]
    assert {f.kind for f in found if isinstance(f, Quarantined)} == {"not_selected"}


def test_a_dataset_without_a_preset_names_its_repository_and_shape(hub: HubServer) -> None:
    hub.dataset("a/b", {"x.jsonl": lines([{"question": "a", "solution": "hm", "answer": "5", "kind": "k"}] * 3)})
    source = PoolHub(repo="a/b", path="x.jsonl", shape="long_solution", where={"kind": "k"})
    first, *_ = rows_of(source)
    assert isinstance(first, Conversation)
    assert (first.source, first.id, first.messages[1].reasoning_content) == ("b", "x-1", "hm")


def test_what_is_not_on_the_hub_is_an_error_that_says_so(hub: HubServer) -> None:
    with pytest.raises(DataError, match="Hub dataset openai/gsm8k: no such dataset"):
        rows_of(PoolPreset(name="gsm8k"))
    hub.dataset("openai/gsm8k", {"main/train-00000-of-00001.parquet": parquet([{"question": "a"}])})
    with pytest.raises(DataError, match='no column "answer"; columns found: question'):
        rows_of(PoolPreset(name="gsm8k"))


def test_a_cut_connection_loses_no_row(hub: HubServer) -> None:
    serve(hub, "limo", [{**CARDS["limo"][2], "question": f"q{i}"} for i in range(3000)])
    hub.fail("limo.jsonl", times=3, cut=20_000)
    found = rows_of(PoolPreset(name="limo"))
    assert [f.messages[0].content for f in found if isinstance(f, Conversation)] == [f"q{i}" for i in range(3000)]


def test_local_parquet_is_read_and_its_damage_is_told(tmp_path: Path) -> None:
    whole = parquet([{"messages": [USER, ANSWER], "source": None, "id": i} for i in range(5)])
    (tmp_path / "chats.parquet").write_bytes(whole)
    found = rows_of(PoolFiles(path="x"), tmp_path / "chats.parquet")
    assert [(f.source, f.id) for f in found] == [("chats.parquet", str(i)) for i in range(5)]
    (tmp_path / "chats.parquet").write_bytes(whole[:-20])
    (told,) = rows_of(PoolFiles(path="x", name="chats"), tmp_path / "chats.parquet")
    assert isinstance(told, Quarantined)
    assert told.reason.startswith("damaged or cut short (ArrowInvalid")
    assert told.source == "chats"


def test_a_name_labels_every_row_and_without_one_a_row_keeps_its_own(tmp_path: Path) -> None:
    file = tmp_path / "talk.jsonl"
    rows = [{"messages": [USER, ANSWER], "source": "cn_k12"}, {"messages": [USER, ANSWER]}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, labels in ((None, ["cn_k12", "talk.jsonl"]), ("mine", ["mine", "mine"])):
        source = PoolFiles(kind="files", path=str(file), name=name)
        assert [row.source for row in read_pool_source(source, [file], 0, None)] == labels


def test_a_pool_of_a_ready_set_is_planned_walked_and_pinned_to_its_commit(hub: HubServer, tmp_path: Path) -> None:
    row = CARDS["limo"][2]
    serve(hub, "limo", [{**row, "question": f"q{i}"} for i in range(30)])
    file = tmp_path / "ready.toml"
    source = '{ kind = "preset", name = "limo", max_rows = 20 }'
    file.write_text(f'[[stage]]\nname = "talk"\nkind = "pool"\nvalidation_fraction = 0.0\nsources = [{source}]\n')
    roadmap = load_roadmap(file)
    commit = hub.dataset("GAIR/LIMO").refs["main"]
    plan = plan_roadmap(roadmap, choose_device("cpu", roadmap.machine, tmp_path), tmp_path / "artifacts")
    notes = plan.stages[0].estimate.notes
    assert "limo: Apache-2.0" in notes
    assert f'limo: "main" is now {commit}; write revision = "{commit}" to stay with it' in notes
    pool = walk(roadmap, tmp_path, QuietProgress()).artifacts["talk"]
    assert pool.results["commits"] == {"GAIR/LIMO": commit}
    assert pool.results["counts"]["train"]["by_source"] == {"limo": 20}
    assert pool.results["counts"]["train"]["with_thinking"] == 20


def test_a_change_on_the_hub_makes_the_pool_anew_and_a_new_card_does_not(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "ready.toml"
    file.write_text('[[stage]]\nname = "talk"\nkind = "pool"\nsources = [{ kind = "preset", name = "limo" }]\n')
    rows = lines([CARDS["limo"][2]])

    def fingerprint(files: dict[str, bytes | str]) -> str:
        hub.dataset("GAIR/LIMO").commit(files)
        monkeypatch.setattr(hub_module, "_resolved", {})
        return load_roadmap(file).stages[0].fingerprint

    first = fingerprint({"limo.jsonl": rows})
    assert fingerprint({"limo.jsonl": rows, "README.md": "a card"}) == first
    assert fingerprint({"limo.jsonl": rows + rows}) != first


def test_a_limit_takes_from_everywhere_in_a_long_file(hub: HubServer) -> None:
    rows = [{"question": f"q{i}", "answer": f"a{i}"} for i in range(400)]  # in row groups of two
    hub.dataset("a/b", {"data/train-00000-of-00001.parquet": parquet(rows)})

    def questions(**settings: object) -> list[int]:
        found = rows_of(PoolHub(repo="a/b", **settings))  # type: ignore[arg-type]
        return [int(f.messages[0].content[1:]) for f in found if isinstance(f, Conversation)]

    assert questions(shuffle=False, max_rows=20) == list(range(20))
    spread = questions(max_rows=20)
    assert len(set(spread)) == 20
    assert max(spread) - min(spread) > 200
    assert sorted(questions()) == list(range(400))
    assert [f.id for f in rows_of(PoolHub(repo="a/b")) if isinstance(f, Conversation)][:2] == [
        f"train-00000-of-00001-{number + 1}" for number in questions()[:2]
    ]
