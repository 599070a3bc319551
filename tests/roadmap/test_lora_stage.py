"""`lora` on the stages sft and dpo: what is saved, that a break changes no bit, what a plan says, and refusals."""

import json

import pytest
import torch
from small_stages import PROSE, SFT, TALK, base_of, tokens_of, write_chats, write_lines

from gradus.core.errors import ConfigError
from gradus.model.batch import Documents
from gradus.model.tensor_files import TensorFiles
from gradus.model.weights import load_model, to_stored
from gradus.roadmap.plan import choose_device, plan_roadmap
from gradus.roadmap.progress import QuietProgress
from gradus.roadmap.run import walk
from gradus.roadmap.schema import load_roadmap
from gradus.train import checkpoint

pytestmark = pytest.mark.usefixtures("one_thread")

ROADMAP = (
    PROSE
    + TALK
    + tokens_of(280)
    + base_of(4)
    + SFT
    + """\
batch_tokens = 256
lora = { rank = 4, targets = ["q_proj", "v_proj", "down_proj"] }
epochs = 3
save_every = 3
optimizer = { adapter_lr = 0.02 }

[[stage]]
name = "taste"
kind = "preferences"
sources = [{ path = "pairs.jsonl" }]
validation_fraction = 0.0

[[stage]]
name = "polish"
kind = "dpo"
from = "chat"
pairs = "taste"
pairs_per_step = 8
lora = { rank = 2 }
"""
)


@pytest.fixture
def folder(tmp_path):
    write_lines(tmp_path, 200)
    (tmp_path / "lora.toml").write_text(ROADMAP)
    pairs = [{"prompt": f"Say {i}!", "chosen": f"Well, {i} it is.", "rejected": "No."} for i in range(16)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    write_chats(tmp_path, [(f"{i}?", f"The number {i}.") for i in range(60)])
    return tmp_path


def roadmap(folder, *overrides):
    return load_roadmap(folder / "lora.toml", overrides=overrides)


def test_adapters_are_trained_saved_for_peft_and_merged_for_the_next_stage(folder):
    made = walk(roadmap(folder), folder, QuietProgress()).artifacts
    base, chat, polish = made["base"], made["chat"], made["polish"]
    config = json.loads((chat.path / "adapter" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["peft_type"]) == (4, 16.0, "LORA")
    with TensorFiles(chat.path / "adapter", "adapter_model.safetensors") as tensors:
        assert set(tensors) == {
            f"base_model.model.model.layers.0.{module}.lora_{half}.weight"
            for module in ("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj")
            for half in "AB"
        }
        moved = {name: tensor[...] for name, tensor in tensors.items()}
    assert all(tensor.abs().max() > 1e-4 for tensor in moved.values())
    before, after = (to_stored(load_model(artifact.path / "model")) for artifact in (base, chat))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"model.layers.0.{m}.weight" for m in ("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj")}
    added = (
        4.0
        * moved["base_model.model.model.layers.0.mlp.down_proj.lora_B.weight"]
        @ (moved["base_model.model.model.layers.0.mlp.down_proj.lora_A.weight"])
    )
    name = "model.layers.0.mlp.down_proj.weight"
    torch.testing.assert_close(after[name], before[name] + added)
    assert (polish.path / "adapter" / "adapter_model.safetensors").is_file()
    assert polish.results["accuracy"] >= 0


def test_a_break_changes_no_bit_and_its_checkpoint_is_a_model_folder(folder, monkeypatch):
    (folder / "lora.toml").write_text(ROADMAP[: ROADMAP.index('[[stage]]\nname = "taste"')])
    whole = walk(roadmap(folder), folder / "whole", QuietProgress()).artifacts["chat"]
    saved = checkpoint.Checkpoints.save
    kept = []

    def broken(self, step, *rest):
        kept.append(saved(self, step, *rest))
        if "sft" in str(self.folder):
            raise KeyboardInterrupt
        return kept[-1]

    monkeypatch.setattr(checkpoint.Checkpoints, "save", broken)
    with pytest.raises(KeyboardInterrupt):
        walk(roadmap(folder), folder / "broken", QuietProgress())
    middle = load_model(kept[-1])
    tokens = torch.arange(20)
    assert middle.lora is None
    assert torch.isfinite(middle(tokens, Documents.of_lengths([20]))).all()
    monkeypatch.setattr(checkpoint.Checkpoints, "save", saved)
    resumed = walk(roadmap(folder), folder / "broken", QuietProgress()).artifacts["chat"]
    for name in ("model/model.safetensors", "adapter/adapter_model.safetensors"):
        assert (whole.path / name).read_bytes() == (resumed.path / name).read_bytes()


def planned(roadmap):
    folder = roadmap.directory
    plan = plan_roadmap(roadmap, choose_device("cpu", roadmap.machine, folder), folder / "artifacts")
    return {item.stage.name: item.estimate for item in plan.stages}


def test_a_plan_counts_state_and_gradients_of_adapters_alone(folder):
    found = {}
    for name, override in (("lora", ()), ("whole", ("chat.lora.rank=1", 'chat.lora.targets=["q_proj"]'))):
        found[name] = planned(roadmap(folder, *override))["chat"]
    # rank x (in + out): q and v 4 x (32 + 32) each, down 4 x (96 + 32); 8 bytes of state and 4 of gradient each.
    count = 4 * (32 + 32) * 2 + 4 * (found["lora"].facts["model"]["mlp_width"] + 32)
    assert found["lora"].memory["optimizer"] == 8 * count
    assert found["lora"].memory["gradients"] == 4 * count
    assert found["whole"].memory["optimizer"] == 8 * 64


def test_settings_that_fit_no_model_are_named(folder):
    with pytest.raises(ConfigError, match="q_projj"):
        roadmap(folder, 'chat.lora.targets=["q_projj"]')
    with pytest.raises(ConfigError, match=r"fresh adapters \(lora\) have no state to take over"):
        planned(roadmap(folder, 'chat.optimizer="warm"'))
    with pytest.raises(ConfigError, match="rank 99 is more than the 32 channels"):
        planned(roadmap(folder, "chat.lora.rank=99"))
