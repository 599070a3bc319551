"""The model card: README.md with the Hub's metadata, for a reader who knows nothing of this project.

What nobody stated is said to be unknown; no licence is guessed.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from gradus.conversation.formats.hermes import VLLM_FLAGS
from gradus.core.machine import package_version
from gradus.core.quantity import format_count
from gradus.model.config import ModelConfig
from gradus.model.hub import XIELU
from gradus.release.origin import Origin
from gradus.release.settings import ExportSettings
from gradus.tokenizer.tokenizer import Tokenizer

_SERVE = f"vllm serve FOLDER {shlex.join(VLLM_FLAGS)}"


def model_card(
    config: ModelConfig, tokenizer: Tokenizer, settings: ExportSettings, origin: Origin, results: Mapping[str, Any]
) -> str:
    """The text of README.md. results: those of the export, with its checks."""
    title = settings.title or origin.name
    sections = [
        _metadata(settings, origin, results),
        f"# {title}",
        _opening(config, tokenizer, origin, results),
        "## Use",
        *_usage(settings, origin, results),
        "## Results",
        *_results(origin),
        "## What it is",
        *_architecture(config, tokenizer, results),
        "## Where it comes from",
        *_lineage(origin),
        "## Data and licences",
        *_licences(settings, origin),
        "## Limits",
        *_limits(config, origin),
        "## Proof that this is the model",
        *_proof(results),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _metadata(settings: ExportSettings, origin: Origin, results: Mapping[str, Any]) -> str:
    """The YAML block that the Hub reads."""
    datasets = sorted({source.dataset for source in origin.sources if source.dataset})
    library = {"library_name": "transformers"} if "transformers" in settings.formats else {}
    tags = ["gradus", *(["conversational"] if origin.trained == "chat" else [])]
    tags += ["gguf"] if settings.wants_gguf else []
    table: dict[str, Any] = {**library, "pipeline_tag": "text-generation", "tags": tags}
    if settings.licence is not None:
        table["license"] = settings.licence
    if settings.languages:
        table["language"] = list(settings.languages)
    if datasets:
        table["datasets"] = datasets
    # As the Hub names models: without the commit, which the text states.
    hub_bases = [n.removeprefix("hub:").partition("@")[0] for n in origin.base_models if n.startswith("hub:")]
    if hub_bases:
        table["base_model"] = hub_bases
    return f"---\n{yaml.safe_dump(table, sort_keys=False, allow_unicode=True).strip()}\n---"


def _opening(config: ModelConfig, tokenizer: Tokenizer, origin: Origin, results: Mapping[str, Any]) -> str:
    does = (
        "a chat model that can think and call tools"
        if origin.trained == "chat"
        else "a base model: it goes on with text"
    )
    return (
        f"A small language model of {format_count(results['parameters'])} parameters, {does}. Context "
        f"{config.context:,} tokens, vocabulary {tokenizer.vocab_size:,}. Made with gradus "
        f"{package_version('gradus') or ''} from raw text to this folder."
    ).replace("  ", " ")


def _usage(settings: ExportSettings, origin: Origin, results: Mapping[str, Any]) -> Iterator[str]:
    reached = results["reach"]
    if "transformers" in settings.formats:
        trust = ", trust_remote_code=True" if results["class"] == "gradus" else ""
        lines = ["from transformers import AutoModelForCausalLM, AutoTokenizer", ""]
        lines += ['tokenizer = AutoTokenizer.from_pretrained("FOLDER")']
        lines += [f'model = AutoModelForCausalLM.from_pretrained("FOLDER"{trust})']
        if origin.trained == "chat":
            lines += [
                'messages = [{"role": "user", "content": "Hello!"}]',
                "inputs = tokenizer.apply_chat_template(",
                '    messages, add_generation_prompt=True, return_tensors="pt", return_dict=True',
                ")",
            ]
        else:
            lines += ['inputs = tokenizer("<|endoftext|>The ", return_tensors="pt")']
        lines += ["print(tokenizer.decode(model.generate(**inputs, max_new_tokens=256)[0]))"]
        yield "With transformers:"
        yield "```python\n" + "\n".join(lines) + "\n```"
        if trust:
            yield "No class of transformers computes it, so it brings its own code: read `modeling_gradus.py` first."
        if origin.trained == "chat":
            yield (
                "`enable_thinking=False` in `apply_chat_template` answers without thinking. Text from strangers can "
                "spell control tokens: pass `sanitize_control_tokens=True` where your transformers has it."
            )
        if reached["vllm"].startswith("no: "):
            yield f"vLLM: {reached['vllm'].removeprefix('no: ')}."
        else:
            yield f"With vLLM ({reached['vllm']}):"
            yield f"```sh\n{_SERVE if origin.trained == 'chat' else 'vllm serve FOLDER'}\n```"
            if results["class"] == "apertus":
                yield "Without the package `xielu`: its CUDA kernel ignores `beta` and computes another model."
    for file in results.get("gguf", []):
        yield f"With llama.cpp, `{file['file']}` ({file['type']}):"
        chat = " -cnv --jinja" if origin.trained == "chat" else " -p 'The '"
        yield f"```sh\nllama-cli -m {file['file']}{chat}\n```"
    if "ollama" in settings.formats:
        yield "With Ollama:"
        yield "```sh\nollama create NAME -f Modelfile\nollama run NAME\n```"
        yield "Its template was rendered by Go's text/template and compared; Ollama itself was not run."


def _results(origin: Origin) -> Iterator[str]:
    if not origin.results:
        yield "No evaluation stage of this model was found, so nothing is claimed."
        return
    rows = ["| evaluation | measure | value | 95 % interval | n |", "| --- | --- | --- | --- | --- |"]
    for result in origin.results:
        n = f"{result.n:,}" if result.n is not None else ""
        interval = f"{result.lower:.4g} to {result.upper:.4g}"
        rows.append(f"| {result.stage} | {result.measure} | {result.value:.4g} | {interval} | {n} |")
    yield "\n".join(rows)
    yield "How each was asked stands in the settings of its stage, below by its fingerprint."


def _architecture(config: ModelConfig, tokenizer: Tokenizer, results: Mapping[str, Any]) -> Iterator[str]:
    c = config
    heads = f"{c.num_heads} heads of {c.head_dim} channels" + (
        f", {c.num_kv_heads} of keys and values" if c.num_kv_heads != c.num_heads else ""
    )
    experts = ""
    if c.num_experts is not None:
        experts = f", {c.num_experts} experts of {c.expert_width}, {c.experts_per_token} for each token"
    yield (
        f"Class `{results['class']}`: {c.depth} layers, {c.width} wide, {heads}; feed-forward {c.mlp_width} wide "
        f"({c.activation}){experts}; RMSNorm, RoPE of base {c.rope_base:g}"
        + (f" stretched {c.rope_scaling.factor:g} times by YaRN" if c.rope_scaling else "")
        + (f"; windows {[w or 'all' for w in c.windows]}" if c.window_pattern else "")
        + ("; tied head" if c.tie_embeddings else "")
        + f". Byte-level BPE tokenizer, digest `{tokenizer.digest[:16]}`."
    )
    if results["class"] == "apertus":
        yield (
            "The activation is relu(x)^2, which is Apertus' xIELU with alpha_p = 1, alpha_n = 0 and beta = 0 "
            f"(stored behind a softplus: {XIELU['alpha_p'][0]:.4f} and {XIELU['alpha_n'][0]:g})."
        )


def _lineage(origin: Origin) -> Iterator[str]:
    if not origin.lineage:
        yield "It was exported from a bare folder: no record of how it was made lies beside it."
        return
    seed = "" if origin.seed is None else f", seed {origin.seed}"
    yield f"Every stage from raw text on, by its fingerprint (settings, sources and parents{seed}):"
    rows = ["| stage | kind | fingerprint | made |", "| --- | --- | --- | --- |"]
    rows += [f"| {step.name} | {step.kind} | `{step.fingerprint[:16]}` | {step.summary} |" for step in origin.lineage]
    yield "\n".join(rows)


def _licences(settings: ExportSettings, origin: Origin) -> Iterator[str]:
    if settings.licence is None:
        yield "No licence of these weights was stated by who exported them: all rights stay with their author."
    else:
        yield f"These weights: `{settings.licence}`."
    if origin.base_models:
        yield f"It began from {', '.join(f'`{name}`' for name in origin.base_models)}, whose licence binds it too."
    if not origin.sources:
        yield "No record of the data lies beside the model."
        return
    rows = ["| stage | source | licence |", "| --- | --- | --- |"]
    rows += [
        f"| {source.stage} | {_linked(source.name, source.reference)} | {source.licence or 'not stated'} |"
        for source in origin.sources
    ]
    yield "\n".join(rows)
    if any(not source.licence for source in origin.sources):
        yield "Where a licence is not stated, look it up before you pass the model on."


def _linked(name: str, reference: str) -> str:
    return f"[{name}]({reference})" if reference.startswith("https://") else f"`{name}`"


def _limits(config: ModelConfig, origin: Origin) -> Iterator[str]:
    lines = [
        "- It is small: it states falsehoods fluently, and its knowledge ends with its training text.",
        f"- Beyond {config.context:,} tokens it was not trained: what it says there is untested.",
    ]
    if origin.trained == "chat":
        lines.append(
            "- Arithmetic and search are sound only through its tools; without a host that runs them it guesses."
        )
    lines.append("- No safety training is claimed. Do not let it decide about people.")
    yield "\n".join(lines)


def _proof(results: Mapping[str, Any]) -> Iterator[str]:
    if results["gguf"] and not any("llama.cpp" in check["reader"] for check in results["checks"]):
        yield "llama.cpp was not at hand: its files were read back and compared, and not run by it."
    yield (
        "Before it was written, other programs read these files and were compared with the decoder that trained the "
        f"model, in fp32 on a CPU, on {results['check_text']}. An export that differs by more than rounding is "
        "refused. Checksums of all files stand in `manifest.json`."
    )
    rows = ["| file | read by | tokens | largest difference of a logit | greedy answers equal | cost of rounding |"]
    rows.append("| --- | --- | --- | --- | --- | --- |")
    for check in results["checks"]:
        greedy = check["greedy"]
        ties = f" and {greedy['ties']} parted at a tie" if greedy.get("ties") else ""
        cost = "none"
        if "kl_nats" in check:
            perplexity = check["perplexity"]
            cost = f"{check['kl_nats']:.2g} nats, perplexity {perplexity['ours']:.4g} to {perplexity['exported']:.4g}"
        rows.append(
            f"| {check['file']} | {check['reader']} | {check['tokens']:,} | {check['largest_difference']:.1e} | "
            f"{greedy['equal']} of {greedy['beginnings']}{ties} | {cost} |"
        )
    yield "\n".join(rows)
