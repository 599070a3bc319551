"""A stage that takes over its parent's optimizer state, and stages that begin from a checkpoint of another."""

import pytest
import torch
from safetensors.torch import load_file
from small_stages import PROSE, SFT, TALK, Stopping, tokens_of, write_chats, write_lines

from gradus.core.errors import ConfigError, GradusError
from gradus.roadmap.place import Place
from gradus.roadmap.plan import choose_device, plan_roadmap
from gradus.roadmap.progress import QuietProgress
from gradus.roadmap.run import walk
from gradus.roadmap.schema import load_roadmap
from gradus.roadmap.stages import dpo, pretrain
from gradus.roadmap.status import artifact_path
from gradus.train import loop

STAGES = '[machine]\nthreads = 1\nprecision = "fp32"\n\n' + PROSE + tokens_of(280)
# The rate is the same at every step, so that a run in two parts can be the run in one.
CONSTANT = "schedule = { warmup_fraction = 0.0, decay_fraction = 0.0 }"


def training(name, steps, **written):
    """A pretraining stage of so many steps; written: its other keys as TOML."""
    keys = {"tokens": '"tokens"', "context": "64", "batch_tokens": "512", "samples": "[]", "save_every": "6"}
    body = "\n".join(f"{key} = {value}" for key, value in (keys | written).items())
    head = f'\n[[stage]]\nname = "{name}"\nkind = "pretrain"\nhorizon = "{steps} steps"\n'
    return (
        head
        + ("" if "from" in written else "model = { depth = 2, width = 32, head_dim = 16 }\n")
        + f"{body}\n{CONSTANT}\n"
    )


def whole(**optimizer):
    return training("whole", 12, **optimizer)


def halves(state, **optimizer):
    table = ", ".join([f'state = "{state}"', *optimizer.values()])
    first = training("first", 6, **({"optimizer": f"{{ {', '.join(optimizer.values())} }}"} if optimizer else {}))
    return first + training("second", 6, **{"from": '"first"', "continue_data": "true", "optimizer": f"{{ {table} }}"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Text and chats; walks of the module share the stages they begin with."""
    folder = tmp_path_factory.mktemp("warm")
    write_lines(folder, 300)
    write_chats(folder, [(f"Is it {i}?", "Yes.") for i in range(60)])
    return folder


class Lines(QuietProgress):
    """Keeps what is said."""

    def __init__(self):
        super().__init__()
        self.said = []

    def line(self, text):
        self.said.append(text)


def loaded(folder, text, overrides=(), smoke=False):
    (folder / "warm.toml").write_text(STAGES + text)
    return load_roadmap(folder / "warm.toml", overrides, smoke)


def walked(folder, text, *overrides, smoke=False, progress=None, home=None):
    roadmap = loaded(folder, text, overrides, smoke)
    return walk(roadmap, home or folder / "home", progress or QuietProgress()).artifacts


def weights(artifact):
    return load_file(artifact.path / "model" / "model.safetensors")


def differ(one, other):
    one, other = weights(one), weights(other)
    assert one.keys() == other.keys()
    return [name for name, tensor in one.items() if not torch.equal(tensor, other[name])]


@pytest.mark.parametrize(
    "kinds", [{}, {"a": 'matrix = "adamw"'}, {"a": 'matrix = "adafactor"', "b": 'rest = "adafactor"'}]
)
def test_a_run_in_two_parts_is_the_run_in_one_bit_for_bit_where_the_state_is_taken_over(folder, kinds):
    one = whole(**({"optimizer": f"{{ {', '.join(kinds.values())} }}"} if kinds else {}))
    parts = walked(folder, one + halves("warm", **kinds))
    assert differ(parts["whole"], parts["second"]) == []


def test_without_the_state_a_run_in_two_parts_is_another_one(folder):
    parts = walked(folder, whole() + halves("fresh"))
    assert differ(parts["whole"], parts["second"])


def test_three_parts_count_the_steps_of_all_before(folder):
    thirds = (
        training("one", 4)
        + training("two", 4, **{"from": '"one"', "continue_data": "true", "optimizer": '"warm"'})
        + training("three", 4, **{"from": '"two"', "continue_data": "true", "optimizer": '"warm"'})
    )
    parts = walked(folder, whole() + thirds)
    assert differ(parts["whole"], parts["three"]) == []


@pytest.mark.parametrize("layout", ["shard", pytest.param("replicate", marks=pytest.mark.slow)])
def test_the_state_of_one_process_is_taken_over_by_two(folder, layout):
    text = halves("warm")
    one = weights(walked(folder, text)["second"])
    # A home of its own, where the first half is done already: processes are no part of a stage's identity.
    home = folder / layout
    for stage in load_roadmap(folder / "warm.toml").stages[:-1]:
        (home / "artifacts").mkdir(parents=True, exist_ok=True)
        made = artifact_path(folder / "home" / "artifacts", stage)
        (home / "artifacts" / made.name).symlink_to(made)
    two = weights(walked(folder, text, "machine.processes=2", f"machine.parallel={layout}", home=home)["second"])
    assert all(torch.allclose(tensor, two[name], atol=1e-4) for name, tensor in one.items())
    fresh = weights(walked(folder, halves("fresh"))["second"])
    assert not all(torch.allclose(tensor, fresh[name], atol=1e-2) for name, tensor in one.items())


def test_fine_tuning_takes_the_state_over_and_says_so(folder):
    chat = TALK + '\n[[stage]]\nname = "chat"\nkind = "sft"\nfrom = "first"\nmixture = [{ source = "talk" }]\n'
    progress = Lines()
    warm = walked(folder, training("first", 6) + chat + 'optimizer = "warm"\n', progress=progress)["chat"]
    assert [line for line in progress.said if "optimizer state of first after 6 steps taken over (" in line]
    assert warm.manifest.settings["optimizer"]["state"] == "warm"
    fresh = walked(folder, training("first", 6) + chat)["chat"]
    assert fresh.manifest.settings["optimizer"]["state"] == "fresh"
    assert differ(warm, fresh)


def test_an_interrupted_warm_stage_goes_on_from_its_own_checkpoint(folder):
    wanted = walked(folder, halves("warm"))["second"]
    text = halves("warm").replace("second", "broken")
    with pytest.raises(KeyboardInterrupt):
        walked(folder, text, "broken.save_every=2", "broken.log_every=1", progress=Stopping(4 * 500))
    assert differ(wanted, walked(folder, text, "broken.save_every=2", "broken.log_every=1")["broken"]) == []


# What cannot be taken over


def test_another_kind_of_optimizer_is_refused_before_anything_runs(folder):
    second = training("second", 6, **{"from": '"first"', "optimizer": '{ state = "warm", matrix = "adamw" }'})
    with pytest.raises(
        ConfigError,
        match=r'that of matrix = "muon", rest = "adamw", and this stage trains with matrix = "adamw", rest = "adamw"; '
        r'make them the same, or write optimizer = "fresh"',
    ):
        walked(folder, training("first", 6) + second)


def test_a_warm_start_from_nothing_is_refused(folder):
    with pytest.raises(ConfigError, match=r'optimizer = "warm" takes over the state of `from`; name that stage'):
        walked(folder, training("first", 6, optimizer='"warm"'))


def test_a_misspelled_state_is_told_with_the_nearest(folder):
    with pytest.raises(
        ConfigError, match=r'"optimizer": expected one of fresh, warm, found "wram"; did you mean "warm"'
    ):
        walked(folder, training("first", 6, optimizer='"wram"'))


def interrupt(*_):
    raise KeyboardInterrupt


def test_a_stage_that_keeps_no_checkpoint_leaves_its_model_alone_and_cannot_be_taken_over(folder, monkeypatch):
    first = walked(folder, training("first", 6))["first"]
    bare = training("bare", 6, keep_checkpoints="0", save_every="2")
    # Killed after the last step: the checkpoints are still there.
    real = Place.commit
    monkeypatch.setattr(Place, "commit", interrupt)
    with pytest.raises(KeyboardInterrupt):
        walked(folder, bare)
    monkeypatch.setattr(Place, "commit", real)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", None)  # no step is trained again
        done = walked(folder, bare)["bare"]
    assert not [name for name in done.manifest.files if "step-" in name]
    assert done.results["optimizer_state_bytes"] > 4 * done.results["parameters"]
    assert differ(done, first) == []
    second = training("second", 6, **{"from": '"bare"', "optimizer": '"warm"'})
    with pytest.raises(
        ConfigError, match=r"keeps no checkpoint \(keep_checkpoints = 0\), and so no state; write optimizer"
    ):
        walked(folder, bare + second)
    with pytest.raises(ConfigError, match="keep_checkpoints = 0 keeps none, and keep_best or protect asks for some"):
        walked(folder, training("bare", 6, keep_checkpoints="0", protect="[2]"))


def test_a_protected_step_is_saved_where_no_other_checkpoint_falls(folder):
    base = walked(folder, training("spared", 6, protect="[2, 5]", save_every="4"))["spared"]
    assert sorted(path.name for path in (base.path / "checkpoints").glob("step-*")) == [
        "step-00000002",
        "step-00000005",
        "step-00000006",
    ]


@pytest.mark.parametrize(
    ("checkpoint", "written", "message"),
    [
        ("2", {}, r'will keep no checkpoint "@2": at its end it keeps @4, @6; write protect = \[2\] there'),
        ("3", {}, r'"@3": at its end it keeps @4, @6; write protect'),
        ("7", {"protect": "[7]"}, r'"@7": it ends after 6 steps'),
        ("best", {}, r'"@best": it keeps no best checkpoint; give it keep_best'),
        ("4", {"keep_checkpoints": "0"}, r'"@4": it keeps no checkpoint \(keep_checkpoints = 0\)'),
    ],
)
def test_a_checkpoint_that_will_be_gone_is_refused_before_the_parent_is_trained(folder, checkpoint, written, message):
    first = training("unmade", 6, **({"save_every": "2"} | written))
    later = training("later", 2, **{"from": f'"unmade@{checkpoint}"'})
    with pytest.raises(ConfigError, match=message):
        walked(folder, first + later, home=folder / "unmade")
    assert not list((folder / "unmade").rglob("checkpoints"))


@pytest.mark.parametrize("written", [{"protect": "[2]"}, {"keep_best": '"bpb"', "evaluate_every": "2"}])
def test_a_checkpoint_that_can_be_there_is_not_refused(folder, written):
    first = training("unmade", 6, **({"save_every": "2"} | written))
    roadmap = loaded(folder, first + training("later", 2, **{"from": '"unmade@2"'}))
    assert plan_roadmap(roadmap, choose_device("cpu", roadmap.machine, folder), folder / "home" / "artifacts")


def test_experts_and_adapters_leave_no_state_to_take_over(folder):
    model = "{ depth = 2, width = 32, head_dim = 16, num_experts = 2 }"
    parts = training("parts", 2, samples="[]").replace('"pretrain"', '"experts"')
    parts = parts.replace("model = { depth = 2, width = 32, head_dim = 16 }", f"model = {model}")
    routers = training("routers", 2, **{"from": '"parts"', "optimizer": '"warm"'})
    with pytest.raises(ConfigError, match=r"each expert was trained with an optimizer of its own.*optimizer = \"fresh"):
        walked(folder, parts + routers)
    chat = SFT.replace('"chat"', '"adapted"') + "lora = { rank = 2 }\nsteps_at_most = 2\n"
    again = SFT.replace('"base"', '"adapted"') + 'optimizer = "warm"\nsteps_at_most = 2\n'
    with pytest.raises(ConfigError, match=r"of `from` trained adapters \(lora\) alone, and its state is theirs; write"):
        walked(folder, TALK + training("base", 6) + chat + again)


def test_a_stage_that_goes_on_in_the_precision_that_it_was_begun_in_says_so(folder):
    text = training("begun", 12, seed="3")  # one that no other test of the module has made already
    with pytest.raises(KeyboardInterrupt):
        walked(folder, text, "machine.precision=fp16", progress=Stopping(3500))
    said = Lines()
    walked(folder, text, progress=said)
    assert [line for line in said.said if "was begun in fp16 and goes on in it, not in fp32" in line]


def test_a_state_that_is_gone_is_told_with_the_fix(folder, monkeypatch):
    monkeypatch.setattr("gradus.roadmap.stages.pretrain.refuse_warm", lambda *_: None)
    bare = training("bare", 6, keep_checkpoints="0", save_every="2")
    with pytest.raises(GradusError, match=r'bare keeps no checkpoint.*or write optimizer = "fresh"'):
        walked(folder, bare + training("second", 6, **{"from": '"bare"', "optimizer": '"warm"'}))


def test_what_is_left_out_of_the_table_is_the_stage_kinds_own_default():
    written = dpo.Settings.model_validate({"optimizer": {"state": "warm", "matrix_lr": 1e-4}}).optimizer
    assert (written.matrix_lr, written.embed_lr, written.head_lr) == (1e-4, 2e-4, 4e-5)
    assert dpo.Settings.model_validate({"optimizer": "warm"}).optimizer.vector_lr == 5e-5


def test_a_fresh_optimizer_need_not_be_written():
    assert pretrain.Settings.model_validate({"optimizer": "fresh"}) == pretrain.Settings()


# Checkpoints


def test_a_stage_begins_from_the_checkpoint_that_it_names(folder):
    parts = walked(folder, whole() + training("fork", 0, **{"from": '"whole@6"'}).replace('"0 steps"', '"1 steps"'))
    half = walked(folder, halves("fresh"))["first"]
    twin = walked(folder, training("first", 6) + training("twin", 1, **{"from": '"first"'}))["twin"]
    assert differ(parts["fork"], twin) == []
    assert half.fingerprint != parts["whole"].fingerprint


def test_the_best_checkpoint_is_one_to_begin_from_with_its_state(folder):
    judged = training("judged", 12, keep_best='"bpb"', evaluate_every="6")
    fork = training("fork", 1, **{"from": '"judged@best"', "optimizer": '"warm"'})
    progress = Lines()
    made = walked(folder, judged + fork, progress=progress)
    best = (made["judged"].path / "checkpoints" / "best").resolve().name
    assert [line for line in progress.said if f"state of judged@best after {int(best[-8:])} steps taken over" in line]


def test_a_checkpoint_that_is_not_kept_is_told_with_those_that_are(folder):
    with pytest.raises(GradusError, match=r'whole keeps no checkpoint "@5"; there are @latest, @6, @12'):
        walked(folder, whole() + training("fork", 1, **{"from": '"whole@5"'}))


def test_data_cannot_go_on_from_a_checkpoint(folder):
    fork = training("fork", 1, **{"from": '"whole@6"', "continue_data": "true"})
    with pytest.raises(
        GradusError, match=r"continue_data begins where the stage of `from` ended, not at its checkpoint @6"
    ):
        walked(folder, whole() + fork)


def test_only_models_have_checkpoints(folder):
    with pytest.raises(ConfigError, match=r'"tokens": only `from` takes a checkpoint; leave out "@3"'):
        walked(folder, training("first", 6, tokens='"tokens@3"'))


def test_a_smoke_run_has_other_steps(folder):
    text = whole() + training("fork", 1, **{"from": '"whole@6"', "optimizer": '"warm"'})
    assert walked(folder, text, smoke=True)["fork"].results["steps"] == 12
