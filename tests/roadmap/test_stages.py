"""The data stages on small real inputs: corpus, tokenizer, tokenize, synthesize, pool."""

import json
import subprocess
import sys

import pytest

from gradus.core.errors import ConfigError, GradusError
from gradus.data.pool import read_pool
from gradus.data.shards import TokenStore
from gradus.roadmap.plan import choose_device, plan_roadmap
from gradus.roadmap.progress import QuietProgress
from gradus.roadmap.run import walk
from gradus.roadmap.schema import load_roadmap
from gradus.tokenizer.loading import load_tokenizer

DATA = """\
[[stage]]
name = "prose"
kind = "corpus"
sources = [{ kind = "files", path = "text.txt", split = "line" }]
validation_fraction = 0.1

[[stage]]
name = "talk"
kind = "pool"
sources = [{ path = "chats" }]
validation_fraction = 0.1

[[stage]]
name = "bpe"
kind = "tokenizer"
corpus = "prose"
pools = ["talk"]
vocab_size = 300

[[stage]]
name = "tokens"
kind = "tokenize"
corpus = "prose"
tokenizer = "bpe"
"""

APPENDED = """
[[stage]]
name = "later"
kind = "corpus"
sources = [{ kind = "files", path = "later.txt", split = "line" }]
validation_fraction = 0.1

[[stage]]
name = "grown"
kind = "tokenize"
corpus = "later"
tokenizer = "bpe"
extends = "tokens"

[[stage]]
name = "base"
kind = "pretrain"
tokens = "tokens"
model = { depth = 1, width = 32, head_dim = 16 }
context = 32
batch_tokens = 512
evaluate_tokens = 100
samples = []

[[stage]]
name = "more"
kind = "pretrain"
tokens = "grown"
from = "base"
context = 32
batch_tokens = 512
evaluate_tokens = 100
samples = []
generation = 1
continue_data = true
"""


class Lines(QuietProgress):
    """Progress that keeps its lines."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def line(self, text):
        self.lines.append(text)


@pytest.fixture
def folder(tmp_path):
    """A roadmap over a text file and two files of conversations, one row of them broken."""
    lines = [f"Line {i}: the cat number {i * 7} sat on mat {i % 13}." for i in range(200)]
    (tmp_path / "text.txt").write_text("\n".join([*lines, lines[0]]))
    (tmp_path / "chats").mkdir()
    rows = [{"instruction": f"Say {i}", "input": "", "output": f"It is {i}." + " zebra" * 30} for i in range(40)]
    (tmp_path / "chats" / "a.json").write_text(json.dumps(rows))
    messages = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Zyzzyva!"}]
    (tmp_path / "chats" / "b.jsonl").write_text(json.dumps({"messages": messages}) + "\n{broken\n")
    (tmp_path / "chats" / "README.md").write_text("not a row")
    (tmp_path / "data.toml").write_text(DATA)
    return tmp_path


def run(folder, *overrides, smoke=False, **options):
    roadmap = load_roadmap(folder / "data.toml", overrides, smoke)
    return walk(roadmap, folder, QuietProgress(), **options)


def test_text_becomes_tokens_and_every_text_comes_back(folder):
    made = run(folder).artifacts
    assert made["prose"].results["counts"]["dropped"] == {"duplicate": 1}
    assert made["prose"].results["documents"] + made["prose"].results["validation_documents"] == 200
    tokens = made["tokens"]
    tokenizer = load_tokenizer(tokens.path / "tokenizer")
    assert tokenizer.vocab_size == tokens.results["vocab_size"] == 300
    store = TokenStore(tokens.path, "train")
    assert store.num_documents == tokens.results["documents"] == made["prose"].results["documents"]
    assert store.num_tokens == tokens.results["tokens"]
    assert tokens.results["longest_document"] == {
        split: TokenStore(tokens.path, split).lengths.max() for split in ("train", "validation")
    }
    by_length = {}
    for length in map(int, store.lengths):
        key = str(2 ** (length.bit_length() - 1))
        by_length[key] = by_length.get(key, 0) + length
    assert tokens.results["tokens_by_length"] == by_length
    lines = set((folder / "text.txt").read_text().split("\n"))
    assert {tokenizer.decode(list(store.ids(i)), skip_special=True) for i in range(5)} <= lines


def test_a_corpus_is_appended_to_the_shards_of_an_earlier_stage(folder):
    lines = [f"Later {i}: the dog sat on mat {i}." for i in range(60)]
    (folder / "later.txt").write_text("\n".join(lines))
    (folder / "data.toml").write_text(DATA + APPENDED)
    made = run(folder, "base.horizon=6 steps", "more.horizon=3 steps").artifacts
    old, new = made["tokens"], made["grown"]
    assert new.results["generations"] == {"train": 2, "validation": 2}
    assert new.results["tokens"] > old.results["tokens"]
    for name in old.manifest.files:
        if name.startswith(("train/", "validation/")):
            assert new.manifest.files[name] == old.manifest.files[name]
    pinned = TokenStore(new.path, "train", generation=1)
    assert pinned.fingerprint == TokenStore(old.path, "train").fingerprint
    assert TokenStore(new.path, "train").counts["by_source"]["later"]["documents"] > 40
    # The second model goes on in the first generation where the first one stopped.
    first, second = (json.loads(made[name].file("bookmark.json").read_text()) for name in ("base", "more"))
    assert (first["row"], second["row"]) == (6 * 16, 9 * 16)
    assert first["data"] == second["data"]
    assert made["more"].results["epochs"]["text"] == pytest.approx(9 * 16 / first["data"]["rows"])
    with pytest.raises(GradusError, match=r"bookmark at row 96 belongs to other data \(generation: 1, found 2; "):
        run(folder, "base.horizon=6 steps", "more.generation=2")


def test_sources_of_a_pretraining_are_weighted_by_tokens(folder):
    (folder / "later.txt").write_text("\n".join(f"Later {i}: the dog sat on mat {i}." for i in range(60)))
    (folder / "data.toml").write_text(DATA + APPENDED)
    fresh = ("more.continue_data=false", "more.generation=2")
    weights = "more.weights={ later = 0.8, text = 0.2 }"
    changed = ("base.horizon=1 steps", "more.horizon=20 steps", weights, *fresh)
    progress = Lines()
    made = walk(load_roadmap(folder / "data.toml", changed), folder, progress).artifacts["more"]
    epochs = made.results["epochs"]
    assert epochs["later"] > 5 * epochs["text"]
    assert any('"later" is repeated' in line for line in progress.lines)
    with pytest.raises(GradusError, match='weights: no rows of source "web"'):
        run(folder, "base.horizon=1 steps", "more.continue_data=false", 'more.weights={ "web" = 1.0 }')


def test_a_corpus_tells_what_it_leaves_out_as_it_is_made(folder):
    # Only the report told: half of a folder could be dropped as no UTF-8 and the walk end as if nothing were.
    (folder / "text.txt").write_bytes(b"One line.\nOne line.\nAnother line.\nA caf\xe9 line.\n\n")
    progress = Lines()
    walk(load_roadmap(folder / "data.toml", ["prose.validation_fraction=0"]), folder, progress, only=["prose"])
    assert "  kept 2 of 4 documents; dropped 1 duplicate, 1 invalid_utf8" in progress.lines


def test_a_pool_counts_what_it_leaves_out(folder):
    talk = run(folder, only=["talk"]).artifacts["talk"]
    assert talk.results["conversations"] + talk.results["validation_conversations"] == 41
    assert talk.results["dropped"] == 1
    assert talk.results["counts"]["train"]["by_source"]["a.json"] >= 30
    assert any(c.messages[-1].content.startswith("It is 3.") for c in read_pool(talk.path, "train"))


def test_the_tokenizer_learns_from_pools_too(folder):
    with_pool = run(folder, "bpe.vocab_size=285").artifacts["bpe"]
    without = run(folder, "bpe.vocab_size=285", "bpe.pools=[]").artifacts["bpe"]
    assert without.results["digest"] != with_pool.results["digest"]


def test_a_tokenizer_is_taken_from_a_folder(folder):
    trained = run(folder).artifacts["bpe"]
    take = f"bpe.take=folder:{trained.path / 'tokenizer'}"
    taken = run(folder, take, "bpe.pattern=cl100k").artifacts["bpe"]
    assert taken.results["digest"] == trained.results["digest"]
    assert taken.fingerprint != trained.fingerprint
    with pytest.raises(ConfigError, match=r'"take": .*nowhere: no tokenizer\.json there'):
        run(folder, "bpe.take=folder:nowhere")
    with pytest.raises(ConfigError, match='"take": expected "folder:PATH" or "hub:owner/name@revision", found "gpt2"'):
        run(folder, "bpe.take=gpt2")


def test_wrong_settings_of_data_stages_are_told_with_the_nearest_name(folder):
    with pytest.raises(ConfigError) as caught:
        run(
            folder,
            "bpe.pattern=qwen",
            "prose.sources=[{ kind = 'file', path = 'x' }]",
            "talk.sources=[{ path = 'chatz' }]",
            "talk.validation_fraction=0.9",
        )
    text = str(caught.value)
    assert 'unknown pattern "qwen"' in text
    assert 'did you mean "qwen2"' in text
    kinds = "files, synthetic, manifest, hub, preset"
    assert f'"sources[0].kind": expected one of {kinds}, found "file"; did you mean "files"?' in text
    assert '"validation_fraction": expected at most 0.5, found 0.9' in text
    with pytest.raises(ConfigError, match=r'"sources\[0\]\.path": "chatz": no such file: .*; did you mean "chats"'):
        run(folder, "talk.sources=[{ path = 'chatz' }]")


def test_a_tokenizer_without_text_or_size_says_what_to_give(folder):
    (folder / "data.toml").write_text('[[stage]]\nname = "bpe"\nkind = "tokenizer"\n')
    with pytest.raises(GradusError, match='missing key "vocab_size"'):
        run(folder)
    with pytest.raises(GradusError, match="a tokenizer learns from text"):
        run(folder, "bpe.vocab_size=300")


def test_smoke_sizes_of_data_stages_are_small(folder):
    roadmap = load_roadmap(folder / "data.toml", ["bpe.vocab_size=32_000"], smoke=True)
    assert roadmap.stage("bpe").settings.vocab_size == 512
    assert roadmap.stage("talk").settings.sources[0].max_rows == 300
    assert roadmap.stage("prose").settings.sources[0].limit.value == 1500


def test_a_plan_uses_what_is_finished_and_estimates_the_rest(folder):
    def facts():
        roadmap = load_roadmap(folder / "data.toml")
        device = choose_device("cpu", roadmap.machine, folder)
        return {p.stage.name: p for p in plan_roadmap(roadmap, device, folder / "artifacts").stages}

    before = facts()["tokens"]
    made = run(folder).artifacts["tokens"].results["tokens"]
    assert before.estimate.tokens > 0
    assert not before.done
    after = facts()
    assert after["bpe"].done
    assert after["tokens"].known.tokens == made
    with pytest.raises(ConfigError, match='no device "h10"; did you mean "h100"'):
        choose_device("h10", load_roadmap(folder / "data.toml").machine, folder)
    (folder / "devices.toml").write_text("[mine]\nflops_per_second = 1e12\nmemory_gib = 8\n")
    assert choose_device("mine", load_roadmap(folder / "data.toml").machine, folder).flops_per_second == 1e12


def test_a_model_that_cannot_be_is_told_with_its_stage(folder):
    stage = '\n[[stage]]\nname = "base"\nkind = "pretrain"\ntokens = "tokens"\nmodel = { depth = 2, widht = 64 }\n'
    (folder / "data.toml").write_text(DATA + stage)
    roadmap = load_roadmap(folder / "data.toml")
    with pytest.raises(
        ConfigError, match=r'data\.toml:26 stage "base": model: unknown key "widht"; did you mean "width"'
    ):
        plan_roadmap(roadmap, choose_device("cpu", roadmap.machine, folder), folder / "artifacts")


def test_every_stage_kind_loads_without_torch():
    code = (
        "import sys\nfrom gradus.roadmap.kinds import KINDS, stage_module\n"
        "for kind in KINDS:\n"
        "    m = stage_module(kind)\n"
        "    assert all(hasattr(m, n) for n in ('VERSION', 'MAKES', 'INPUTS', 'Settings', 'sources', 'plan', 'run'))\n"
        "import gradus.roadmap.run, gradus.roadmap.report\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_relative_folder_of_evaluation_sets_starts_at_the_roadmap(folder, monkeypatch):
    sets = folder / "sets" / "gsm8k"
    sets.mkdir(parents=True)
    row = {"question": "How many apples are left when Anna gives three of her eleven apples away?", "answer": "#### 8"}
    (sets / "test.jsonl").write_text(json.dumps(row) + "\n")
    monkeypatch.setenv("GRADUS_BENCHMARKS", "sets")
    monkeypatch.chdir(folder / "chats")
    text = (folder / "text.txt").read_text()
    (folder / "text.txt").write_text(f"{text}\n{row['question']} I wonder.")
    corpus = run(folder).artifacts["prose"]
    assert corpus.results["counts"]["dropped"] == {"contaminated.gsm8k": 1, "duplicate": 1}
