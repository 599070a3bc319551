"""What tests of exports share: small random models of every kind with a tokenizer, as a stage leaves them."""

import hashlib
import json
from pathlib import Path

import torch

from gradus.conversation.formats.hermes_template import HERMES_TEMPLATE
from gradus.core.fingerprint import digest
from gradus.model.config import model_config
from gradus.model.transformer import build_model
from gradus.model.weights import save_model
from gradus.release.check_text import make_check_text
from gradus.release.export import export_model
from gradus.release.origin import Origin
from gradus.release.settings import ExportSettings
from gradus.tokenizer.difficult_text import difficult_texts
from gradus.tokenizer.training import train_tokenizer

ROOT = Path(__file__).parents[2]
VOCAB = 400
TABLE = {"depth": 3, "width": 64, "num_heads": 4, "num_kv_heads": 2, "head_dim": 16, "mlp_width": 96}
EXPERTS = {"num_experts": 4, "experts_per_token": 2, "expert_width": 32}
SIGMOID = EXPERTS | {"router": "sigmoid", "balance": "bias", "shared_experts": 1, "dense_layers": 1}
WINDOW = {"window_pattern": "SSL", "window": 24}
KINDS = {
    "qwen3": {},
    "llama": {"qk_norm": False, "tie_embeddings": True},
    "qwen3_moe": EXPERTS,
    "dots1": SIGMOID | {"num_kv_heads": 4},
    "apertus": {"activation": "relu2", "rope_scaling": {"factor": 4.0, "original_context": 32}},
    "mellum": WINDOW | EXPERTS,
    "gradus": {"family": "speedrun", "window": 24, "wave_kernel": 3},
}


def save_random(folder, tokenizer=None, **changes):
    """A random model and its tokenizer in a new folder."""
    folder.mkdir(parents=True)
    # A text that never changes, since golden values hang on its ids.
    tokenizer = tokenizer or train_tokenizer([(ROOT / "LICENSE").read_text(), *difficult_texts(())], VOCAB)
    tokenizer.save(folder, HERMES_TEMPLATE)
    generator = torch.Generator().manual_seed(0)
    model = build_model(model_config(TABLE | changes, tokenizer.vocab_size, 96), generator)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + 0.3 * noise if parameter.ndim == 1 else 2 * noise / parameter.shape[-1] ** 0.5)
    save_model(folder, model, token_ids={"eos_token_id": tokenizer.special("<|im_end|>")})
    return folder


def exported(model, work, say=lambda text: None, **settings):
    """The results of an export into a new folder."""
    work.mkdir(parents=True)
    options = ExportSettings(**({"prompts": 6} | settings))
    origin = Origin(name="toy", documents=tuple(own_text()), text="LICENSE")
    return export_model(model, model, options, origin, work, say)


def own_text():
    """Documents that never change."""
    return [part for part in (ROOT / "LICENSE").read_text().split("\n\n") if part.strip()]


def change_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def llamacpp_text(tokenizer, config):
    """What llama.cpp and our decoder both read: a text that never changes."""
    return make_check_text(
        tokenizer, own_text(), "LICENSE", length=160, context=config.context, num_beginnings=4, chats=True
    )


def gguf_digest(path):
    """Identity of what a GGUF file says, whatever the order it is written in."""
    import gguf

    reader = gguf.GGUFReader(path)
    fields = {f.name: str(f.contents()) for f in reader.fields.values() if not f.name.startswith("GGUF.")}
    tensors = {
        t.name: [t.shape.tolist(), t.tensor_type.name, hashlib.sha256(t.data.tobytes()).hexdigest()]
        for t in reader.tensors
    }
    return digest({"fields": fields, "tensors": tensors})
