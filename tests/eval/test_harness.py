"""Our model inside lm-eval. Most of it runs where lm-eval is installed (make test-peers)."""

import importlib.util
import json

import pytest
from seeded_bundle import write_seeded_bundle

from gradus.cli.harness import run_harness
from gradus.core.errors import ConfigError, MissingPackageError

HAS_LM_EVAL = importlib.util.find_spec("lm_eval") is not None
needs_lm_eval = pytest.mark.skipif(not HAS_LM_EVAL, reason="needs lm-eval: pip install gradus[lmeval]")
OPTIONS = {"include": None, "limit": None, "shots": None, "chat": False, "multiturn": False, "think": None, "out": None}
ITEMS = [{"q": f"{a} and {b} is", "a": str(a + b)} for a in range(3) for b in range(3)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    write_seeded_bundle(tmp_path / "model")
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ITEMS))
    shared = {
        "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(tmp_path / "sums.jsonl")}},
        "test_split": "test", "fewshot_split": "test", "doc_to_text": "{{q}}", "doc_to_target": "{{a}}",
    }  # fmt: skip
    said = {"output_type": "generate_until", "generation_kwargs": {"until": ["\n"], "max_gen_toks": 5}}
    told = {"output_type": "loglikelihood", "metric_list": [{"metric": "perplexity"}]}
    for name, more in {"sums": said | {"metric_list": [{"metric": "exact_match"}]}, "told": told}.items():
        (tmp_path / f"{name}.yaml").write_text(json.dumps(shared | {"task": name} | more))
    return tmp_path


@pytest.mark.skipif(HAS_LM_EVAL, reason="lm-eval is installed")
def test_without_lm_eval_the_message_says_how_to_install_it(tmp_path):
    with pytest.raises(MissingPackageError, match=r'"lm_eval" is needed .* pip install "gradus\[lmeval\]"'):
        run_harness("any", ["sums"], tmp_path, **OPTIONS)


@needs_lm_eval
def test_a_task_runs_and_its_samples_are_written(folder, capsys):
    run_harness(
        str(folder / "model"), ["sums"], folder, **OPTIONS | {"include": folder, "limit": 3, "out": folder / "o.json"}
    )
    assert "exact_match" in capsys.readouterr().out
    samples = json.loads((folder / "o.json").read_text())["samples"]["sums"]
    assert [sample["arguments"][0][0] for sample in samples] == [
        "0 and 0 is",
        "0 and 1 is",
        "0 and 2 is",
    ]


@needs_lm_eval
def test_examples_become_turns_of_the_chat_template(folder):
    chat = {"include": folder, "limit": 1, "shots": 1, "chat": True, "multiturn": True, "think": False}
    run_harness(str(folder / "model"), ["sums"], folder, **OPTIONS | chat | {"out": folder / "o.json"})
    (sample,) = json.loads((folder / "o.json").read_text())["samples"]["sums"]
    prompt = sample["arguments"][0][0]
    assert prompt.count("<|im_start|>user\n") == 2
    assert prompt.count("<|im_end|>") == 3
    assert prompt.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")


@needs_lm_eval
def test_what_cannot_be_run_is_said(folder):
    model = str(folder / "model")
    with pytest.raises(ConfigError, match='lm-eval has no task "sumz"; did you mean "sums"'):
        run_harness(model, ["sumz"], folder, **OPTIONS | {"include": folder})
    with pytest.raises(ConfigError, match="told: perplexity is never measured inside a chat template"):
        run_harness(model, ["told"], folder, **OPTIONS | {"include": folder, "chat": True})
    with pytest.raises(ConfigError, match="add --chat"):
        run_harness(model, ["sums"], folder, **OPTIONS | {"multiturn": True})
