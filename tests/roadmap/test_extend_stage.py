"""The stage `extend`: what it trains on, measures and saves, with gates, resuming, two processes and wrong settings."""

import json
import math
import re
from contextlib import contextmanager

import pytest
import torch
from small_stages import base_of, tokens_of

from gradus.core.errors import ConfigError, GateFailedError, GradusError
from gradus.data.long_documents import long_rows
from gradus.data.shards import TokenStore
from gradus.model.batch import Documents
from gradus.model.config import model_config
from gradus.model.rope import RopeScaling
from gradus.model.weights import load_model
from gradus.roadmap.metrics import StepLines
from gradus.roadmap.plan import choose_device, plan_roadmap
from gradus.roadmap.progress import QuietProgress
from gradus.roadmap.report_data import report_data
from gradus.roadmap.run import walk
from gradus.roadmap.schema import load_roadmap
from gradus.roadmap.stages import extend

pytestmark = pytest.mark.usefixtures("one_thread")

ROADMAP = (
    """\
name = "longer"

[machine]
threads = 1
precision = "fp32"

[[stage]]
name = "prose"
kind = "corpus"
sources = [{ kind = "files", path = "texts/*.txt" }]
validation_fraction = 0.3
"""
    + tokens_of(280)
    + base_of(20, context=64, batch_tokens=512)
    + """\
evaluate_tokens = 500

[[stage]]
name = "long"
kind = "extend"
tokens = "tokens"
from = "base"
context = 384
horizon = "6 steps"
batch_tokens = 1536
micro_rows = 2
save_every = 2
evaluate_every = 3
evaluate_tokens = 1000
passkey_samples = 1
least_document_tokens = 300

[[stage]]
name = "exam"
kind = "eval"
from = "long"
tokens = "tokens"
"""
)


@pytest.fixture
def folder(tmp_path):
    """A roadmap over forty texts, two thirds of them long."""
    (tmp_path / "texts").mkdir()
    for number in range(40):
        count = 12 if number % 3 == 0 else 120
        words = " ".join(f"item{(number * k) % 23} lies on shelf {k % 17}." for k in range(count))
        (tmp_path / "texts" / f"{number:02}.txt").write_text(words)
    (tmp_path / "longer.toml").write_text(ROADMAP)
    return tmp_path


def walked(folder, *overrides, home=None):
    roadmap = load_roadmap(folder / "longer.toml", overrides)
    return walk(roadmap, home or folder, QuietProgress()).artifacts


def test_a_longer_context_is_trained_measured_and_saved_for_the_hub(folder):
    from transformers import AutoModelForCausalLM

    made = walked(folder)["long"]
    results = made.results
    packing = results["packing"]
    assert packing["row_length"] == 384
    assert packing["long_fraction"] >= 0.8
    assert packing["least_document_tokens"] == 300
    assert results["positions"]["edges"] == [0, 64, 128, 256, 384]
    for measured in (results, results["before"], results["rescaled"]):
        assert len(measured["positions"]["perplexity"]) == 4
        assert {"whole", "within", "beyond"} == set(measured["perplexity"])
        assert measured["passkey"]["total"]["n"] == 5 * (len(measured["passkey"]) - 1)
    # It learned something, of the new positions too.
    assert results["perplexity"]["beyond"]["value"] < results["before"]["perplexity"]["beyond"]["value"]
    model = load_model(made.path / "model")
    assert (model.config.context, model.config.rope_scaling.factor) == (384, 6.0)
    assert model.config.rope_scaling.original_context == 64
    tokens = torch.arange(250) % 280
    with torch.no_grad():
        ours = model.head(model(tokens, Documents.of_lengths([250])))
        theirs = AutoModelForCausalLM.from_pretrained(made.path / "model")(tokens[None]).logits[0]
    assert (ours - theirs).abs().max() < 1e-4


def test_a_horizon_in_tokens_is_kept_where_a_row_is_longer_than_a_step(folder):
    results = walked(folder, "long.batch_tokens=200", 'long.horizon="1920 tokens"')["long"].results
    assert results["steps"] == 5
    assert 0.9 * 1920 < results["tokens"] <= 1920


def test_a_walk_says_what_was_measured(folder):
    lines = []

    class Heard(QuietProgress):
        def line(self, text):
            lines.append(text)

    overrides = ["base.micro_rows=8"]
    results = walk(load_roadmap(folder / "longer.toml", overrides), folder, Heard()).artifacts["long"].results
    warning = "warning: micro_rows = 2 rows of 384 tokens are 768 tokens in one forward pass, more than the 512 of the"
    assert sum(warning in line for line in lines) == 1
    measured = (results["before"], results["rescaled"], results)
    for name in ("within", "beyond"):
        before, stretched, after = (f"{found['perplexity'][name]['value']:.2f}" for found in measured)
        assert f"  perplexity {name} 64 tokens: {before} before, {stretched} stretched, {after} after" in lines
    keys = [found["passkey"]["total"] for found in measured]
    found_of = ", ".join(
        f"{k['successes']} {when}" for k, when in zip(keys, ("before", "stretched", "after"), strict=True)
    )
    nats = ", ".join(f"{key['nats_per_token']:.2f}" for key in keys)
    assert f"  pass keys found of {keys[0]['n']}: {found_of}; nats a token {nats}" in lines


def test_before_and_after_are_plotted_and_gates_name_them(folder):
    gate = 'long.gate=[{ measure = "perplexity.beyond", at_most = 1.01 }]'
    with pytest.raises(GateFailedError, match=r"perplexity\.beyond = .* is above 1\.01"):
        walked(folder, gate)
    (entry,) = [e for e in report_data(folder / "runs" / "longer")["training"] if e["stage"] == "long"]
    results = walked(folder)["long"].results
    assert entry["extension"]["positions"] == {
        "step": [64, 128, 256, 384],
        "before": results["before"]["positions"]["perplexity"],
        "rescaled": results["rescaled"]["positions"]["perplexity"],
        "after": results["positions"]["perplexity"],
    }
    assert set(entry["extension"]["passkeys"]) == {"step", "before", "rescaled", "after"}


def test_a_run_that_was_stopped_ends_with_the_same_weights_and_measures_before_only_once(folder, tmp_path, monkeypatch):
    whole = walked(folder)["long"]
    measured, lines = [], StepLines.append
    original = extend._measured

    def counted(*given):
        measured.append(1)
        return original(*given)

    def stop_after_four(self, **line):
        lines(self, **line)
        if line.get("event") == "train" and line["step"] == 4:
            raise KeyboardInterrupt

    home = tmp_path / "again"
    monkeypatch.setattr(extend, "_measured", counted)
    monkeypatch.setattr(StepLines, "append", stop_after_four)
    with pytest.raises(KeyboardInterrupt):
        walked(folder, "long.log_every=2", home=home)
    monkeypatch.setattr(StepLines, "append", lines)
    assert len(measured) == 2
    again = walked(folder, "long.log_every=2", home=home)["long"]
    assert len(measured) == 3
    assert again.file("model/model.safetensors").read_bytes() == whole.file("model/model.safetensors").read_bytes()
    assert again.results["before"] == whole.results["before"]
    assert again.results["passkey"] == whole.results["passkey"]


@pytest.mark.parametrize("parallel", ["replicate", "shard"])
def test_two_processes_extend_as_one_does(parallel, folder, tmp_path):
    one = walked(folder)["long"].results
    shared = ("machine.processes=2", f"machine.parallel={parallel}")
    two = walked(folder, *shared, home=tmp_path / "two")["long"].results
    assert two["loss"] == pytest.approx(one["loss"], abs=1e-3)
    # The parent is trained by two processes as well.
    for name, measured in one["before"]["perplexity"].items():
        assert two["before"]["perplexity"][name]["value"] == pytest.approx(measured["value"], rel=1e-4)


@pytest.mark.parametrize("rope", ["base", "none"])
def test_other_ways_to_stretch(rope, folder):
    config = load_model(walked(folder, f"long.rope={rope}")["long"].path / "model").config
    assert config.rope_scaling is None
    # 6 times longer, heads of 16 channels: 6 ** (16 / 14) times the base.
    assert config.rope_base == pytest.approx(10_000 * 6 ** (16 / 14) if rope == "base" else 10_000)


def test_an_extended_model_is_extended_again_from_its_first_context(folder):
    text = (folder / "longer.toml").read_text()
    again = text[text.index('[[stage]]\nname = "long"') : text.index('[[stage]]\nname = "exam"')]
    again = again.replace('"long"', '"longer_still"').replace('"base"', '"long"').replace("384", "512")
    (folder / "longer.toml").write_text(text + "\n" + again)
    scaling = load_model(walked(folder)["longer_still"].path / "model").config.rope_scaling
    assert (scaling.factor, scaling.original_context) == (8.0, 64)


def test_wrong_settings_are_told_before_anything_is_trained(folder):
    def planned(*overrides):
        roadmap = load_roadmap(folder / "longer.toml", overrides)
        return plan_roadmap(roadmap, choose_device("cpu", roadmap.machine, folder), folder / "artifacts")

    assert planned().stages[4].estimate.steps == 6
    with pytest.raises(
        ConfigError, match=r'"long".*the model has a context of 64 tokens already; expected more, found 64'
    ):
        planned("long.context=64")
    with pytest.raises(ConfigError, match=r'"rope_base" goes with rope = "base"'):
        planned("long.rope_base=50000.0")


def test_a_plan_counts_what_is_measured_before_stretched_and_after(folder):
    def seconds(*overrides):
        roadmap = load_roadmap(folder / "longer.toml", overrides)
        device = choose_device("cpu", roadmap.machine, folder)
        return plan_roadmap(roadmap, device, folder / "artifacts").stages[4].estimate.seconds

    # Three times another five questions of 384 tokens and five of 192, as many tokens as three evaluations (at 0, 3 and
    # 6 steps) and three measurements have with 1,440 more each.
    assert 3 * 5 * (384 + 192) == 6 * 1440
    more = seconds("long.passkey_samples=2")
    assert more == pytest.approx(seconds("long.evaluate_tokens=2440"), rel=1e-9)
    assert more > seconds()


def test_a_plan_by_epochs_counts_the_rows_that_are_packed(folder):
    for number in range(60):
        (folder / "texts" / f"short {number}.txt").write_text(f"Item {number} lies beside {number * 7}. " * 12)
    overrides = ["long.horizon=1 epoch", "long.least_document_tokens=1024", "long.batch_tokens=384"]
    roadmap = load_roadmap(folder / "longer.toml", overrides)

    def planned():
        device = choose_device("cpu", roadmap.machine, folder)
        return plan_roadmap(roadmap, device, folder / "artifacts").stages[4].estimate

    (note,) = planned().notes
    assert "1,024 tokens and a share of others; how many there are is known once they are encoded" in note
    tokens = walk(roadmap, folder, QuietProgress(), only=["prose", "bpe", "tokens"]).artifacts["tokens"]
    lengths = TokenStore(tokens.path, "train").lengths
    rows = long_rows(lengths, 384, least_tokens=1024, long_fraction=0.8, seed=1)
    # Whole documents fill the share of short ones, so the rows hold at most one of these less than was expected.
    assert planned().steps == pytest.approx(rows.plan.num_tokens / 384, abs=2)
    assert planned().steps < tokens.results["tokens"] / 384 - 5
    (note,) = planned().notes
    assert re.search(r"an epoch is about [\d.]+ k of [\d.]+ k tokens: documents with at least 1,024, and others", note)


def test_documents_too_short_are_told_once_they_are_encoded_and_before_the_parent_is_trained(folder):
    with pytest.raises(ConfigError) as told:
        walked(folder, "long.least_document_tokens=100_000", "long.context=4096")
    first, second = str(told.value).splitlines()
    assert re.search(r'"long".*: no document has 100,000 tokens, the longest has [\d,]+; lower least_document', first)
    assert re.search(r'"long".*: no validation document has 4,096 tokens, .*validation_fraction', second)
    made = {folder.name.split("-")[0] for folder in (folder / "artifacts").iterdir() if folder.is_dir()}
    assert "tokens" in made
    assert "pretrain" not in made
    # Once the tokens are there, a plan knows it too.
    roadmap = load_roadmap(folder / "longer.toml", ["long.context=4096"])
    with pytest.raises(ConfigError, match="no validation document has 4,096 tokens"):
        plan_roadmap(roadmap, choose_device("cpu", roadmap.machine, folder), folder / "artifacts")


def test_tokens_of_an_earlier_version_do_not_say_how_long_documents_are(folder, monkeypatch):
    """The stage itself finds it then."""
    monkeypatch.setattr(extend, "_refuse_short_documents", lambda settings, longest: None)
    with pytest.raises(GradusError, match=r"no document has 100,000 tokens, the longest of .* lower least_document"):
        walked(folder, "long.least_document_tokens=100_000")
    with pytest.raises(GradusError, match=r"no validation document has 4,096 tokens.*validation_fraction"):
        walked(folder, "long.context=4096", "long.least_document_tokens=300")


def test_progress_of_what_is_measured_adds_up_to_its_total(folder):
    shown = {}

    class Counted(QuietProgress):
        @contextmanager
        def task(self, description, total=None, unit=""):
            with super().task(description, total, unit) as task:
                update = task.update

                def counted(done=None, **given):
                    shown.setdefault(description, [total]).append(given.get("advance"))
                    update(done, **given)

                task.update = counted
                yield task

    walk(load_roadmap(folder / "longer.toml", []), folder, Counted())
    for when in ("before", "after"):
        total, *steps = shown[f"perplexity by position and pass keys, {when}"]
        assert len(steps) >= 2
        assert sum(steps) == total


def test_a_smoke_run_reaches_the_end(folder):
    roadmap = load_roadmap(folder / "longer.toml", smoke=True)
    made = walk(roadmap, folder, QuietProgress()).artifacts
    assert made["long"].results["steps"] == 12
    assert json.loads(made["long"].file("model/config.json").read_text())["max_position_embeddings"] == 320


def test_a_raised_base_is_refused_where_positions_are_stretched_by_yarn():
    scaling = {"factor": 4.0, "original_context": 256}
    parent = model_config({"depth": 1, "width": 32, "rope_scaling": scaling}, vocab_size=300, context=1024)
    for given in ({}, {"rope_base": 1e6}):
        with pytest.raises(ConfigError, match=r'"rope": .* by YaRN from 256 tokens, .* twice; expected "yarn"'):
            extend.extended_config(parent, extend.Settings(context=2048, rope="base", **given))
    plain = parent.model_copy(update={"rope_scaling": None})
    assert extend.extended_config(plain, extend.Settings(context=2048, rope="base")).rope_base > plain.rope_base


def stretched(context, *, before, **scaling):
    """What extending to a context makes of the rotary positions of an imported model of context `before`."""
    given = {"factor": 4.0, "original_context": 256} | scaling
    parent = model_config({"depth": 1, "width": 32, "rope_scaling": given}, vocab_size=300, context=before)
    return extend.extended_config(parent, extend.Settings(context=context)).rope_scaling


def test_what_the_positions_of_an_imported_model_came_with_stays_when_they_are_stretched_anew():
    assert stretched(2048, before=1024, beta_fast=64.0, beta_slow=2.0, attention_factor=1.0) == RopeScaling(
        factor=8.0, original_context=256, beta_fast=64.0, beta_slow=2.0, attention_factor=1.0
    )
    # Written out by a program that writes what follows from the factor.
    written = 0.1 * math.log(4.0) + 1
    assert stretched(2048, before=1024, attention_factor=written).attention_factor is None
    with pytest.raises(ConfigError, match=r"stretched from 256 tokens already; expected more, found 128"):
        stretched(128, before=64)
