"""Midtraining and what may follow what: shares of tokens, loss on every token, resuming, refusals."""

import json

import numpy as np
import pytest
import torch
from small_stages import PROSE, SFT, TALK, Stopping, base_of, tokens_of, write_chats, write_lines

from gradus.conversation.formats.hermes import HermesFormat
from gradus.core.errors import ConfigError, GradusError
from gradus.data.loader import RowLoader
from gradus.data.plans import Packing, ShardPlans
from gradus.data.pool import read_pool
from gradus.model.batch import IGNORE, Documents
from gradus.model.deepen import deeper_model
from gradus.model.weights import load_model
from gradus.roadmap.progress import QuietProgress
from gradus.roadmap.run import walk
from gradus.roadmap.schema import load_roadmap
from gradus.roadmap.stages import midtrain
from gradus.tokenizer.loading import load_tokenizer

HEAD = (
    """\
name = "mid"
seed = 3

[machine]
threads = 1

"""
    + PROSE
    + TALK
    + tokens_of(285)
    + base_of(4, context=64, depth=2, batch_tokens=512)
)
MID = """
[[stage]]
name = "mid"
kind = "midtrain"
from = "base"
tokens = "tokens"
mixture = [{ source = "talk" }]
context = 64
horizon = "24 steps"
batch_tokens = 512
save_every = 3
evaluate_every = 8
log_every = 2
samples = []
"""
CHAT = SFT + "batch_tokens = 512\nsteps_at_most = 2\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with text, conversations and a home in which everything up to `chat` is made."""
    folder = tmp_path_factory.mktemp("mid")
    write_lines(folder, 400)
    write_chats(folder, [(f"Say {i}", f"It is {i}.") for i in range(120)])
    walked(folder, HEAD + CHAT)
    return folder


def walked(folder, text, *overrides, home="home", progress=None):
    file = folder / "mid.toml"
    file.write_text(text)
    return walk(load_roadmap(file, overrides), folder / home, progress or QuietProgress()).artifacts


@pytest.fixture
def mixed(folder, monkeypatch):
    """(the mixed store, its weights, the artifacts), as midtraining hands them on."""
    caught = []

    def catch(stage, inputs, place, store, weights, **others):
        caught.append(
            (store, weights, {name: inputs[name] for name in ("tokens", "from")} | {"talk": inputs.named("talk")})
        )
        raise ConfigError("stopped here")

    monkeypatch.setattr(midtrain, "train_on", catch)
    with pytest.raises(GradusError, match="stopped here"):
        walked(folder, HEAD + MID)
    return caught[0]


def test_every_conversation_stands_in_the_stream_as_it_is_rendered(mixed):
    store, _, artifacts = mixed
    form = HermesFormat(load_tokenizer(artifacts["tokens"].path / "tokenizer"))
    wanted = [form.render(c).ids.tolist() for c in read_pool(artifacts["talk"].path, "train")]
    talk = np.flatnonzero(store.source_index == store.sources.index("talk"))
    # A document of a stream begins with the separator before it.
    assert [store.ids(int(d)).tolist() for d in talk] == [[store.separator, *ids] for ids in wanted]


def test_the_loss_is_on_every_token_of_both(mixed):
    store, weights, _ = mixed
    plans = ShardPlans(store, Packing(64, "fragments", by_source=True))
    loader = RowLoader(store, plans, seed=3, rows_per_step=8, micro_rows=8, weights=weights)
    for step in range(6):
        (batch,) = loader.batches(step)
        used = len(batch.tokens) - batch.padding
        assert (batch.targets[:used] != IGNORE).all()
        assert (batch.targets[used:] == IGNORE).all()


def test_the_shares_are_of_tokens_and_every_token_is_accounted_for(folder):
    results = walked(folder, HEAD + MID)["mid"].results
    by_name = {share["source"]: share for share in results["mixture"]}
    assert by_name["talk"]["token_fraction"] == pytest.approx(0.3, abs=0.02)
    assert sum(share["rows"] for share in results["mixture"]) == 24 * 8
    assert sum(share["tokens"] for share in results["mixture"]) == pytest.approx(results["tokens"], rel=0.02)
    assert set(results["epochs"]) == {"text", "talk"}


def test_pools_share_by_their_weights(folder):
    two = HEAD + MID.replace(
        '[{ source = "talk" }]', '[{ source = "talk", weight = 1 }, { source = "more", weight = 3 }]'
    )
    more = '\n[[stage]]\nname = "more"\nkind = "synthesize"\nconversations = 60\nvalidation_fraction = 0.0\n'
    two = two.replace('\n[[stage]]\nname = "bpe"', more + '\n[[stage]]\nname = "bpe"')
    changed = ("base.context=512", "mid.conversations_fraction=0.5", "mid.context=512", "mid.batch_tokens=8192")
    results = walked(folder, two, *changed)["mid"].results
    shares = {share["source"]: share["token_fraction"] for share in results["mixture"]}
    assert shares["more"] / shares["talk"] == pytest.approx(3, rel=0.15)
    assert shares["more"] + shares["talk"] == pytest.approx(0.5, abs=0.05)


def test_an_interrupted_midtraining_ends_with_the_same_weights(folder):
    whole = walked(folder, HEAD + MID)["mid"]
    for tokens in (2000, 8000):
        with pytest.raises(KeyboardInterrupt):
            walked(folder, HEAD + MID, home="broken", progress=Stopping(tokens))
    broken = walked(folder, HEAD + MID, home="broken")["mid"]
    assert broken.file("model/model.safetensors").read_bytes() == whole.file("model/model.safetensors").read_bytes()
    assert broken.results["mixture"] == whole.results["mixture"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ('mixture = [{ source = "talk" }, { source = "talk" }]', 'source "talk" is listed twice'),
        ("mixture = []", "at least 1 entries"),
        ('mixture = [{ source = "talk", weight = 0 }]', "more than 0"),
    ],
)
def test_a_mixture_that_makes_no_sense_is_refused(folder, changed, message):
    with pytest.raises(ConfigError, match=message):
        walked(folder, HEAD + MID.replace('mixture = [{ source = "talk" }]', changed))


# What may follow what


def again(**settings):
    """A second pretraining stage after `base` or another one."""
    lines = {
        "from": "base",
        "tokens": "tokens",
        "context": 64,
        "horizon": "2 steps",
        "batch_tokens": 512,
        "samples": [],
    }
    body = "\n".join(f"{key} = {json.dumps(value)}" for key, value in (lines | settings).items() if key != "model")
    model = f"\nmodel = {settings['model']}" if "model" in settings else ""
    return f'\n[[stage]]\nname = "again"\nkind = "pretrain"\n{body}{model}\n'


def test_pretraining_goes_on_from_a_parent_of_the_same_shape(folder):
    same = again(model="{ depth = 2, width = 32, head_dim = 16 }")
    assert walked(folder, HEAD + again())["again"].results["model"]["depth"] == 2
    assert walked(folder, HEAD + same)["again"].results["model"]["depth"] == 2


def test_another_depth_than_the_parents_is_refused_before_anything_runs(folder):
    deeper = again(model="{ depth = 3, width = 32, head_dim = 16 }")
    with pytest.raises(
        ConfigError, match=r"that has depth 2, not 3; leave `model` out, or set allow_other_depth = true"
    ):
        walked(folder, HEAD + deeper)
    with pytest.raises(ConfigError, match=r"a model is never made shallower"):
        walked(folder, HEAD + again(model="{ depth = 1, width = 32, head_dim = 16 }", allow_other_depth=True))
    with pytest.raises(ConfigError, match=r"width 32, not 64.*train another shape from fresh weights"):
        walked(folder, HEAD + again(model="{ depth = 2, width = 64, head_dim = 16 }"))


@pytest.mark.parametrize("kind", ["pretrain", "midtrain"])
def test_rows_longer_than_the_parents_context_are_refused_before_anything_runs(folder, kind):
    text = HEAD + (again() if kind == "pretrain" else MID)
    name = "again" if kind == "pretrain" else "mid"
    with pytest.raises(ConfigError, match=r"rows of 128 tokens .* of `from`, 64; write context = 64 or less, or give"):
        walked(folder, text, f"{name}.context=128", home="unmade")


def test_a_deeper_model_begins_as_its_parent(folder):
    base = walked(folder, HEAD)["base"]
    parent = load_model(base.path / "model")
    grown = deeper_model(base.path / "model", 4, torch.Generator().manual_seed(0))
    ids, documents = torch.arange(30), Documents.of_lengths([30])
    with torch.no_grad():
        assert torch.equal(grown.head(grown(ids, documents)), parent.head(parent(ids, documents)))
    text = again(model="{ depth = 3, width = 32, head_dim = 16 }", allow_other_depth=True)
    assert walked(folder, HEAD + text)["again"].results["model"]["depth"] == 3


@pytest.mark.parametrize("kind", ["pretrain", "midtrain"])
def test_a_fine_tuned_parent_is_refused_unless_allowed(folder, kind):
    text = HEAD + CHAT + (again(**{"from": "chat"}) if kind == "pretrain" else MID.replace('"base"', '"chat"'))
    with pytest.raises(ConfigError, match=r"`from` is a fine-tuned model \(an sft stage\).*allow_fine_tuned = true"):
        walked(folder, text)
    name = "again" if kind == "pretrain" else "mid"
    assert (
        walked(folder, text, f"{name}.allow_fine_tuned=true", f'{name}.horizon="2 steps"')[name].results["steps"] == 2
    )
