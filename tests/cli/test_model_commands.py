"""`gradus eval probes` and `gradus chat` on a real, untrained model in a folder."""

import io
import json
import re
from pathlib import Path

import pytest
import torch

from gradus.cli.chatting import ChatOptions, local_loader, start_chat
from gradus.cli.probing import evaluate_probes
from gradus.conversation.formats.hermes import HermesFormat
from gradus.core.errors import ArtifactError, ConfigError
from gradus.model.config import model_config
from gradus.model.transformer import build_model
from gradus.model.weights import save_model
from gradus.tokenizer.training import train_tokenizer
from gradus.tools.toolbox import ToolBox


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    texts = [f"What is {i} plus {i * 3}? It is {i * 4}. The answer stands." for i in range(200)]
    tokenizer = train_tokenizer(iter(texts), 290)
    config = model_config({"depth": 1, "width": 32, "head_dim": 16}, tokenizer.vocab_size, 512)
    save_model(folder, build_model(config, torch.Generator().manual_seed(1)))
    tokenizer.save(folder, chat_template=HermesFormat(tokenizer).chat_template)
    return folder


@pytest.fixture
def suite(tmp_path):
    file = tmp_path / "few.jsonl"
    checks = [{"kind": "answer_number", "value": 5, "tolerance": 0.1}]
    rows = [
        {"id": f"{name}-{i}", "category": name, "messages": [{"role": "user", "content": "2 + 3?"}], "checks": checks}
        for name in ("sum", "tip")
        for i in range(3)
    ]
    file.write_text("\n".join(json.dumps(row) for row in rows))
    return file


def test_probes_are_judged_shown_and_written(model_folder, suite, tmp_path, capsys):
    out = tmp_path / "out.json"
    evaluate_probes([str(model_folder)], str(suite), tmp_path, out=out, failures=2)
    shown = capsys.readouterr().out
    rows = [line.split()[:3] for line in shown.splitlines()]
    assert ["sum", "0/3", "0.0%"] in rows
    assert ["total", "0/6", "0.0%"] in rows
    assert "failed sum-0: " in shown
    assert "and 4 more failed" in shown
    written = json.loads(out.read_text())
    assert written["total"]["n"] == 6
    assert len(written["items"]) == 6


def test_models_and_variants_stand_side_by_side_and_samples_have_a_clustered_rate(
    model_folder, suite, tmp_path, capsys
):
    out = tmp_path / "out.json"
    model = str(model_folder)
    evaluate_probes([model], str(suite), tmp_path, variants=True, samples=2, max_tokens=4, out=out)
    shown = capsys.readouterr().out
    assert re.search(r"^total +6 +0\.0% +0\.0% +0\.0% +0\.0%$", shown, re.M)
    assert "4: 0 won, 0 lost of 6 (p = 1): not resolved" in shown
    runs = json.loads(out.read_text())["runs"]
    assert [run["variant"] for run in runs] == ["as written", "without tools", "without thinking", "without both"]
    assert runs[0]["pass_rate"]["total"]["n"] == 12
    evaluate_probes([model, model], str(suite), tmp_path, max_tokens=4)
    assert len(re.findall(r"^\d  model", capsys.readouterr().out, re.M)) == 2


def test_stages_asks_every_model_of_a_roadmap(model_folder, suite, tmp_path, capsys):
    run = tmp_path / "runs" / "toy"
    run.mkdir(parents=True)
    (run / "roadmap.json").write_text(
        json.dumps({"name": "toy", "stages": [{"name": n, "artifact": n} for n in ("base", "pool", "chat")]})
    )
    for stage in ("base", "chat"):
        (run / stage).mkdir()
        (run / stage / "model").symlink_to(model_folder)
    evaluate_probes(["toy"], str(suite), tmp_path, stages=True, max_tokens=4)
    assert re.findall(r"^\d  (.*)$", capsys.readouterr().out, re.M) == ["toy/base", "toy/chat"]
    with pytest.raises(ArtifactError, match=r'no roadmap "tory".*did you mean "toy"'):
        evaluate_probes(["tory"], str(suite), tmp_path, stages=True)


def test_a_wrong_suite_is_told_before_the_model_is_loaded(tmp_path):
    with pytest.raises(ConfigError, match=r"nothing\.jsonl: no such probe file"):
        evaluate_probes(["no-model"], str(tmp_path / "nothing.jsonl"), tmp_path)


def chat(folder, options, question=None):
    start_chat(local_loader(Path(), ToolBox(), "fp32", None), folder, options, question, history=None)


def test_one_question_gets_one_answer(model_folder, tmp_path, monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr("sys.stdout", stream)
    chat(str(model_folder), ChatOptions(max_tokens=8), "What is 2 plus 6?")
    first = stream.getvalue()
    chat(str(model_folder), ChatOptions(max_tokens=8), "What is 2 plus 6?")
    assert stream.getvalue() == first + first


def test_piped_lines_are_a_conversation(model_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO(f"Hello\nAnd?\n/save {tmp_path / 'c.jsonl'}\n"))
    chat(str(model_folder), ChatOptions(max_tokens=4, tools="off"), None)
    roles = [m["role"] for m in json.loads((tmp_path / "c.jsonl").read_text())["messages"]]
    assert roles == ["user", "assistant", "user", "assistant"]


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="this folder holds no model"):
        chat(str(tmp_path), ChatOptions(), "hello")
