"""Roadmaps: every problem at once, with its line and the nearest name."""

import pytest

from gradus.core.errors import ConfigError
from gradus.roadmap.kinds import KINDS
from gradus.roadmap.schema import load_roadmap


def problems(file, text, *overrides):
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_roadmap(file, overrides)
    return [line.replace(str(file.parent) + "/", "") for line in caught.value.problems]


def test_a_good_roadmap_is_typed_and_linked(roadmap_file):
    roadmap = load_roadmap(roadmap_file)
    assert roadmap.name == "toy"
    assert [s.name for s in roadmap.stages] == ["prose", "talk", "chat"]
    chat = roadmap.stage("chat")
    assert chat.parents == ("prose", "talk")
    assert chat.settings.mixture[0].epochs == 2.0
    assert chat.gates[0].at_least == 0.8
    assert len({s.fingerprint for s in roadmap.stages}) == 3
    with pytest.raises(ConfigError, match='no stage "chta"; did you mean "chat"'):
        roadmap.stage("chta")


def test_all_problems_are_reported_at_once_with_line_and_nearest_name(roadmap_file):
    text = """\
nam = "toy"
seed = "one"
[machine]
treads = 2
precision = "bf15"

[[stage]]
name = "prose"
kind = "corpus"
wrods = 4
path = "missing.txt"

[[stage]]
name = "talk"
kind = "synthesise"

[[stage]]
name = "prose"
kind = "corpus"

[[stage]]
name = "chat"
kind = "sft"
epochs = "six"
corpus = "talk"
mixture = [
  { source = "prose" },
  { source = "tlak", epoch = 2 },
]
[[stage.gate]]
measure = "probes.total"
at_leest = 0.5
not_worse_than = "later"
"""
    assert problems(roadmap_file, text) == [
        'toy.toml:1: unknown key "nam"; did you mean "name"?',
        'toy.toml:2: "seed": expected a whole number, found "one"',
        'toy.toml:4: unknown key "machine.treads"; did you mean "threads"?',
        'toy.toml:5: "machine.precision": expected one of auto, fp32, bf16, fp16, found "bf15"; '
        'did you mean "bf16"?',
        'toy.toml:10 stage "prose": unknown key "wrods"; did you mean "words"?',
        'toy.toml:11 stage "prose": "path": "missing.txt": no such file: missing.txt',
        'toy.toml:15 stage "talk": unknown kind "synthesise"; did you mean "synthesize"?',
        'toy.toml:18 stage "prose": a stage of this name stands at line 7 already',
        'toy.toml:24 stage "chat": "epochs": expected a number, found "six"',
        'toy.toml:27 stage "chat": "mixture[0].source": expected a pool artifact, but stage "prose" makes a '
        'corpus artifact; did you mean "talk"?',
        'toy.toml:28 stage "chat": unknown key "mixture[1].epoch"; did you mean "epochs"?',
        'toy.toml:28 stage "chat": "mixture[1].source": no stage is called "tlak"; did you mean "talk"?',
        'toy.toml:32 stage "chat": gate: unknown key "at_leest"; did you mean "at_least"?',
    ]  # fmt: skip


def test_missing_keys_name_the_stage_line(roadmap_file):
    text = '[[stage]]\nkind = "corpus"\n[[stage]]\nname = "x"\n'
    text += '[[stage]]\nname = "chat"\nkind = "sft"\nmixture = [{}]\n'
    assert problems(roadmap_file, text) == [
        'toy.toml:1: missing key "name"',
        f'toy.toml:3 stage "x": missing key "kind"; kinds are {", ".join(KINDS)}',
        'toy.toml:5 stage "chat": missing key "corpus", the name of an earlier stage that makes a corpus artifact',
        'toy.toml:8 stage "chat": missing key "mixture[0].source"',
    ]


def test_forward_and_circular_inputs_are_refused(roadmap_file):
    sft = '[[stage]]\nname = "{}"\nkind = "sft"\ncorpus = "c"\nfrom = "{}"\n'
    text = '[[stage]]\nname = "c"\nkind = "corpus"\n' + sft.format("a", "b") + sft.format("b", "a")
    assert problems(roadmap_file, text) == [
        'toy.toml:8 stage "a": "from": the inputs go in a circle: a -> b -> a',
    ]
    text = '[[stage]]\nname = "c"\nkind = "corpus"\n' + sft.format("a", "a")
    assert problems(roadmap_file, text) == ['toy.toml:8 stage "a": "from": the inputs go in a circle: a -> a']
    text = sft.replace('from = "{}"\n', "").format("a") + '[[stage]]\nname = "c"\nkind = "corpus"\n'
    assert problems(roadmap_file, text) == [
        'toy.toml:4 stage "a": "corpus": stage "c" stands later (at toy.toml:5); a stage takes its '
        "inputs from earlier ones: move it up"
    ]


def test_syntax_errors_show_the_line(roadmap_file):
    assert problems(roadmap_file, 'name = "a"\nseed = = 3\n') == [
        "toy.toml:2: not valid TOML: Invalid value in `seed = = 3`"
    ]
    assert problems(roadmap_file, "") == ["toy.toml:1: a roadmap needs at least one [[stage]]"]
    roadmap_file.write_bytes(b'name = "a"\nx = "\xff"\n')
    with pytest.raises(ConfigError, match=r"toy\.toml:2: not UTF-8 text \(byte 0xff\)"):
        load_roadmap(roadmap_file)


def test_a_file_that_an_editor_has_marked_as_utf8_is_read_with_its_lines(roadmap_file):
    text = roadmap_file.read_bytes()
    roadmap_file.write_bytes(b"\xef\xbb\xbf" + text)
    assert load_roadmap(roadmap_file).name == "toy"
    roadmap_file.write_bytes(b"\xef\xbb\xbf" + text.replace(b"seed = 1", b"sed = 1"))
    with pytest.raises(ConfigError, match=r'toy\.toml:2: unknown key "sed"; did you mean "seed"'):
        load_roadmap(roadmap_file)


@pytest.mark.parametrize(
    ("setting", "meant"), [("device=gpu", "cuda"), ("device=TPU", "xla"), ("precision=float32", "fp32")]
)
def test_a_thing_may_be_asked_for_by_its_usual_other_name(roadmap_file, setting, meant):
    with pytest.raises(ConfigError, match=f'expected one of .*; did you mean "{meant}"'):
        load_roadmap(roadmap_file, [f"machine.{setting}"])


def test_a_missing_roadmap_suggests_the_nearest_file(roadmap_file):
    with pytest.raises(ConfigError, match=r'toi\.toml: no such roadmap file; did you mean "toy\.toml"\?'):
        load_roadmap(roadmap_file.with_name("toi.toml"))


def test_overrides_are_typed_and_refused_like_the_file(roadmap_file):
    text = roadmap_file.read_text()
    roadmap = load_roadmap(
        roadmap_file,
        [
            "prose.words=9",
            "machine.threads=1",
            "seed=2",
            "chat.mixture.0.epochs=3",
            "chat.gate.0.at_least=0.5",
        ],
    )
    assert roadmap.stage("prose").settings.words == 9
    assert (roadmap.machine.threads, roadmap.seed) == (1, 2)
    chat = roadmap.stage("chat")
    assert chat.settings.mixture[0].epochs == 3.0
    assert chat.gates[0].at_least == 0.5
    wrong = ["prose.wrods=9", "pose.words=1", "chat.epochs=six", "machine.thread=1", "x", "chat=3",
             "chat.epochs=[1", "chat.mixture.4.epochs=1", "prose.path=no.txt"]  # fmt: skip
    assert problems(roadmap_file, text, *wrong) == [
        'override pose.words=1: no stage "pose"; did you mean "prose"?',
        "override x: expected stage.key=value, machine.key=value or seed=value",
        'override chat=3: name a key of stage "chat", as in chat.key=value',
        "override chat.epochs=[1: the value is not valid TOML: Unclosed array (at end of document)",
        'override chat.mixture.4.epochs=1: "mixture" is a list of 1; write a position from 0',
        'override machine.thread=1: unknown key "machine.thread"; did you mean "threads"?',
        'override prose.wrods=9 stage "prose": unknown key "wrods"; did you mean "words"?',
        'override prose.path=no.txt stage "prose": "path": "no.txt": no such file: no.txt',
        'override chat.epochs=six stage "chat": "epochs": expected a number, found "six"',
    ]


def test_an_extending_roadmap_changes_and_adds(roadmap_file):
    child = roadmap_file.with_name("child.toml")
    child.write_text(
        'extends = "toy.toml"\nname = "child"\n[[stage]]\nname = "prose"\nwords = 7\n'
        '[[stage]]\nname = "more"\nkind = "corpus"\n'
    )
    roadmap = load_roadmap(child)
    assert roadmap.name == "child"
    assert roadmap.seed == 1
    assert [s.name for s in roadmap.stages] == ["prose", "talk", "chat", "more"]
    assert roadmap.stage("prose").settings.words == 7
    child.write_text(
        'extends = "toy.toml"\n[[stage]]\nname = "prose"\nwords = "many"\n[[stage]]\nname = "talk"\nraws = 1\n'
    )
    assert problems(child, child.read_text()) == [
        'child.toml:4 stage "prose": "words": expected a whole number, found "many"',
        'child.toml:7 stage "talk": unknown key "raws"; did you mean "rows"?',
    ]
    child.write_text('extends = "child.toml"\n')
    assert problems(child, child.read_text()) == ['child.toml:1: "extends" goes in a circle: child.toml -> child.toml']
    child.write_text('\nextends = "tou.toml"\n')
    assert problems(child, child.read_text()) == [
        'child.toml:2: tou.toml: no such roadmap file; did you mean "toy.toml"?'
    ]


def test_environment_variables_fill_strings(roadmap_file, monkeypatch):
    (roadmap_file.parent / "a.txt").write_text("text")
    text = '[[stage]]\nname = "c"\nkind = "corpus"\npath = "${TOY_DATA:-.}/a.txt"\n'
    roadmap_file.write_text(text)
    assert load_roadmap(roadmap_file).stage("c").settings.path == "./a.txt"
    monkeypatch.setenv("TOY_DATA", str(roadmap_file.parent))
    assert load_roadmap(roadmap_file).stage("c").settings.path == f"{roadmap_file.parent}/a.txt"
    assert problems(roadmap_file, text.replace(":-.", "2")) == [
        'toy.toml:4 stage "c": "path": the environment variable TOY_DATA2 is not set; set it, or '
        "give a default as in ${TOY_DATA2:-value}",
        'toy.toml:4 stage "c": "path": "${TOY_DATA2}/a.txt": no such folder: ${TOY_DATA2}',
    ]


def test_what_changes_a_fingerprint_and_what_does_not(roadmap_file):
    def prints(*overrides):
        return [s.fingerprint for s in load_roadmap(roadmap_file, overrides).stages]

    base = prints()
    assert prints("machine.threads=1", "name=other", "chat.gate.0.at_least=0.1") == base
    words = prints("prose.words=5")
    assert [a == b for a, b in zip(base, words, strict=True)] == [False, True, False]
    assert not set(prints("seed=2")) & set(base)
    assert [a == b for a, b in zip(base, prints("chat.epochs=3"), strict=True)] == [True, True, False]
    assert [a == b for a, b in zip(base, prints("chat.epochs=2"), strict=True)] == [True, True, True]
    # The name of an input is not part of what a stage does.
    renamed = roadmap_file.with_name("renamed.toml")
    renamed.write_text(roadmap_file.read_text().replace('"prose"', '"books"'))
    assert [s.fingerprint for s in load_roadmap(renamed).stages] == base


def test_an_edited_source_file_changes_the_fingerprint(roadmap_file):
    (roadmap_file.parent / "a.txt").write_text("one")
    override = ["prose.path=a.txt"]
    before = load_roadmap(roadmap_file, override).stage("prose").fingerprint
    (roadmap_file.parent / "a.txt").write_text("two")
    assert load_roadmap(roadmap_file, override).stage("prose").fingerprint != before


def test_where_a_roadmap_and_its_model_lie_is_no_part_of_what_is_made_of_them(tmp_path):
    takes = [
        f'[[stage]]\nname = "{kind}"\nkind = "{kind}"\ntake = "folder:model"\n' for kind in ("import", "tokenizer")
    ]
    found = []
    for place in ("here", "there"):
        model = tmp_path / place / "model"
        model.mkdir(parents=True)
        for name in ("config.json", "model.safetensors", "tokenizer.json"):
            (model / name).write_text(name)
        (tmp_path / place / "toy.toml").write_text("".join(takes))
        found.append([stage.fingerprint for stage in load_roadmap(tmp_path / place / "toy.toml").stages])
    assert found[0] == found[1]


def test_smoke_sizes_have_their_own_name_and_fingerprints(roadmap_file):
    full, smoke = load_roadmap(roadmap_file), load_roadmap(roadmap_file, smoke=True)
    assert smoke.name == "toy-smoke"
    assert smoke.stage("prose").settings.words == 1
    assert smoke.stage("prose").fingerprint != full.stage("prose").fingerprint


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_a_seed_that_no_generator_takes_is_refused_before_the_walk(roadmap_file, seed):
    # Stages before the first model were walked, and then it was an internal error.
    with pytest.raises(ConfigError) as found:
        load_roadmap(roadmap_file, [f"seed={seed}", f"prose.seed={seed}"])
    expected = "at least 0" if seed < 0 else f"less than {2**63}"
    assert found.value.problems == [
        f'override seed={seed}: "seed": expected {expected}, found {seed}',
        f'override prose.seed={seed} stage "prose": "seed": expected {expected}, found {seed}',
    ]
