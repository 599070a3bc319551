"""The stages `preferences` and `dpo` on pairs from files: counts, held-back measures, the reference kept on disk."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from small_stages import PROSE, SFT, TALK, base_of, tokens_of, write_chats, write_lines

from gradus.conversation.messages import Conversation, Message, Pair, ToolCall
from gradus.conversation.records import Quarantined
from gradus.core.errors import ConfigError, GradusError
from gradus.core.home import REFERENCE_FOLDER
from gradus.posttrain import dpo
from gradus.roadmap.metrics import StepLines
from gradus.roadmap.progress import QuietProgress
from gradus.roadmap.run import walk
from gradus.roadmap.schema import load_roadmap
from gradus.roadmap.stages import dpo as stage
from gradus.roadmap.stages import preferences
from gradus.train.loop import StepReport
from gradus.train.parallel import World

pytestmark = pytest.mark.usefixtures("one_thread")

ROADMAP = (
    PROSE
    + TALK
    + tokens_of(280)
    + base_of(2)
    + SFT
    + """\
batch_tokens = 256

[[stage]]
name = "taste"
kind = "preferences"
sources = [{ path = "pairs.jsonl" }]
validation_fraction = 0.2
reject_artifacts = true

[[stage]]
name = "polish"
kind = "dpo"
from = "chat"
pairs = "taste"
pairs_per_step = 8
micro_pairs = 4
log_every = 1
epochs = 2
keep_best = "validation_loss"

[[stage]]
name = "exam"
kind = "eval"
from = "polish"
prompts = "talk"
audit_samples = 5
max_tokens = 8

[[stage.gate]]
measure = "audit.html_tag"
bound = "upper"
at_most = 0.7
"""
)


@pytest.fixture
def folder(tmp_path):
    """The roadmap with forty pairs, one of them with a tag in its chosen answer, and a row that is no pair."""
    write_lines(tmp_path, 200)
    (tmp_path / "taste.toml").write_text(ROADMAP)
    pairs = [{"prompt": f"Say {i}!", "chosen": f"Well, {i} it is.", "rejected": f"No {i} for you."} for i in range(39)]
    pairs.append({"prompt": "Say 99!", "chosen": "<b>99</b>", "rejected": "No."})
    rows = [*pairs, {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_chats(tmp_path, [(f"{i}?", f"{i}!") for i in range(40)])
    return tmp_path


def walked(folder, *overrides):
    return walk(load_roadmap(folder / "taste.toml", overrides=overrides), folder, QuietProgress()).artifacts


def test_pairs_from_files_train_with_every_row_counted_and_the_reference_is_computed_once(folder, monkeypatch):
    first = walked(folder)
    taste, polish = first["taste"], first["polish"]
    counts = taste.results["counts"]
    assert counts["read"] == 41
    assert counts["dropped"] == {"artifact_html_tag": 1, "conversation": 1}
    drops = (taste.path / "drops.json").read_text(encoding="utf-8")
    assert "html_tag: <b>" in drops
    assert "a conversation; preferences take pairs" in drops
    assert taste.results["pairs"] + taste.results["validation_pairs"] == 39

    lines = StepLines(polish.path / "metrics.jsonl").lines()
    train = [line for line in lines if line["event"] == "train"]
    watched = ("margin", "accuracy", "chosen_reward", "rejected_reward", "chosen_logp", "rejected_logp",
               "chosen_tokens", "rejected_tokens", "chosen_change", "both_fall", "kl_estimate")  # fmt: skip
    assert set(watched) <= train[0].keys()
    assert polish.results["steps"] == len(train) == -(-taste.results["pairs"] // 8) * 2
    # The first loss is that of an unmoved policy; the held-back pairs are learned too.
    assert train[0]["margin"] == pytest.approx(0.0, abs=1e-4)
    assert polish.results["validation_accuracy"] > 0.5
    assert polish.results["validation_margin"] > 0
    assert (polish.path / "checkpoints" / "best").resolve().name == f"step-{len(train):08d}"

    # Of none in 5 the upper bound is 3 / 5.
    assert first["exam"].results["audit"]["html_tag"]["upper"] == pytest.approx(0.6)
    audited = json.loads((first["exam"].path / "audit.json").read_text(encoding="utf-8"))
    assert [len(audited["samples"]), audited["rates"]["any"]["n"]] == [5, 5]

    kept = sorted((folder / REFERENCE_FOLDER).iterdir())
    assert len(kept) == 2  # of the pairs trained on and of those held back

    def refuse(*_, **__):
        raise AssertionError("computed again")

    monkeypatch.setattr(dpo, "reference_logps", refuse)
    again = walked(folder, "polish.beta=0.3", 'polish.loss="ipo"')
    assert again["polish"].path != polish.path
    assert sorted((folder / REFERENCE_FOLDER).iterdir()) == kept
    # A loss without a reference asks for none.
    free = walked(folder, 'polish.loss="simpo"', "polish.beta=2.0", "polish.gamma=0.5")["polish"]
    assert "kl_estimate" not in free.results
    assert "validation_margin" in free.results

    for file in kept:
        file.write_bytes(b"torn")
    with pytest.raises(GradusError, match="damaged reference log-probabilities; delete the file"):
        walked(folder, "polish.beta=0.4")


def test_the_same_weights_under_another_config_have_a_reference_of_their_own(tmp_path, monkeypatch):
    computed = []

    def count(*_, **__):
        computed.append(1)
        return np.full(2, -len(computed), dtype=np.float32)

    monkeypatch.setattr(dpo, "reference_logps", count)
    parent = SimpleNamespace(folder=tmp_path / "model")
    parent.folder.mkdir()
    (parent.folder / "model.safetensors").write_bytes(b"weights")
    model, store = SimpleNamespace(compute_dtype="float32"), SimpleNamespace(fingerprint="f", num_documents=2)
    place, session = SimpleNamespace(home=tmp_path, progress=QuietProgress()), SimpleNamespace(world=World())

    def reference(rope_theta):
        (parent.folder / "config.json").write_text(json.dumps({"rope_theta": rope_theta}))
        return stage._reference(stage.Settings(), parent, model, store, place, session).tolist()

    assert [reference(theta) for theta in (10_000, 500_000, 10_000)] == [[-1, -1], [-2, -2], [-1, -1]]


def test_an_artifact_anywhere_in_the_chosen_turn_counts_and_none_in_what_tools_gave():
    settings = preferences.Settings(sources=({"path": "x"},), reject_artifacts=True)
    call = ToolCall("call_1", "f", {})

    def turn(before, result):
        said = Message("assistant", before, tool_calls=(call,))
        return (said, Message("tool", result, tool_call_id="call_1"), Message("assistant", "Two."))

    prompt = Conversation((Message("user", "a?"),))
    rejected = (Message("assistant", "b"),)
    rows = [Pair(prompt, turn(*texts), rejected) for texts in (("<b>Look</b>", "2"), ("I look.", "<b>2</b>"))]
    marked, clean = preferences._pairs(rows, settings)
    assert isinstance(marked, Quarantined)
    assert (marked.kind, clean) == ("artifact_html_tag", rows[1])


def test_a_collapse_of_the_chosen_answers_is_said_once(tmp_path):
    said = []

    class Place:
        work = tmp_path

        class progress:
            line = said.append

    def report(step, **metrics):
        return StepReport(step, 9, 0.5, metrics, 0.1, 1.0, 10, 10, 1.0, 0, 0, True, False, False)

    # Against the reference, and where there is none against the first report.
    falls = [report(i, chosen_logp=-20.0, chosen_tokens=10.0, chosen_change=-0.2 * i) for i in range(1, 6)]
    assert list(stage._watched(iter(falls), Place)) == falls
    assert said == [
        "  warning: step 3: the chosen answers have lost 0.60 nats a token: they are being forgotten; "
        "lower the rates, raise beta, or raise sft_weight"
    ]
    said.clear()
    list(stage._watched((report(i, chosen_logp=-20.0 - 3 * i, chosen_tokens=10.0) for i in range(1, 6)), Place))
    assert [text.split(":")[1] for text in said] == [" step 3"]
    said.clear()
    list(stage._watched((report(i, chosen_logp=-20.0 + i, chosen_tokens=10.0) for i in range(1, 6)), Place))
    assert said == []
    # A resumed walk begins with a later report, and still holds it against the first.
    lines = StepLines(tmp_path / "metrics.jsonl")
    for step in (1, 2):
        lines.append(event="train", step=step, chosen_logp=-20.0 - 3 * step, chosen_tokens=10.0)
    list(stage._watched((report(i, chosen_logp=-20.0 - 3 * i, chosen_tokens=10.0) for i in range(3, 6)), Place))
    assert [text.split(":")[1] for text in said] == [" step 3"]


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (('polish.loss="robust"',), 'loss = "robust" needs label_smoothing'),
        (("polish.label_smoothing=0.1",), 'label_smoothing has a meaning with loss = "robust" only'),
        (("polish.gamma=0.5",), 'gamma has a meaning with loss = "simpo" only'),
        (('polish.loss="hinge"',), 'found "hinge"'),
    ],
)
def test_choices_that_mean_nothing_are_named(folder, overrides, problem):
    with pytest.raises(ConfigError, match=problem):
        load_roadmap(folder / "taste.toml", overrides=overrides)
