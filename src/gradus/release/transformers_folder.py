"""A model as a folder of transformers: config, safetensors, tokenizer with its chat template, generation settings.

A model that no class of the Hub computes gets the code that does, remote/modeling_gradus.py, beside its weights. The
folder is read back by transformers itself, as its user will.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gradus.conversation.formats.wire import Format
from gradus.conversation.messages import Conversation, Message, ToolCall, ToolSchema
from gradus.core.errors import ExportError, MissingPackageError
from gradus.core.files import write_atomic
from gradus.model.portable import portable_form
from gradus.model.transformer import Transformer
from gradus.model.weights import CONFIG_FILE, WEIGHTS_FILE, save_model
from gradus.tokenizer.specials import END_OF_TEXT, IM_END
from gradus.tokenizer.tokenizer import Tokenizer

CODE_FILE = "modeling_gradus.py"
GENERATION_FILE = "generation_config.json"
_CODE = Path(__file__).parent / "remote" / CODE_FILE


def write_transformers_folder(
    folder: Path, model: Transformer, tokenizer: Tokenizer, chat_template: str, dtype: torch.dtype
) -> None:
    """Write the model's files into an existing folder."""
    portable = portable_form(model)
    ids = {"eos_token_id": tokenizer.special(IM_END), "pad_token_id": tokenizer.special(END_OF_TEXT)}
    save_model(folder, portable or model, dtype, ids)
    # safetensors lets nobody else read what it writes, and a server is often another user.
    (folder / WEIGHTS_FILE).chmod(0o644)
    if portable is None:
        shutil.copyfile(_CODE, folder / CODE_FILE)
        table = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        stem = CODE_FILE.removesuffix(".py")
        table["architectures"] = ["GradusForCausalLM"]
        table["auto_map"] = {
            "AutoConfig": f"{stem}.GradusConfig",
            "AutoModelForCausalLM": f"{stem}.GradusForCausalLM",
        }
        write_atomic(folder / CONFIG_FILE, json.dumps(table, indent=2, sort_keys=True) + "\n")
    tokenizer.save(folder, chat_template)
    # Either ends an answer: a conversation's turn, or a document that a base model goes on with.
    ends = [tokenizer.special(IM_END), tokenizer.special(END_OF_TEXT)]
    generation = {"eos_token_id": ends, "pad_token_id": tokenizer.special(END_OF_TEXT)}
    write_atomic(folder / GENERATION_FILE, json.dumps(generation, indent=2) + "\n")


class TransformersReader:
    """An exported folder in transformers, in fp32."""

    unread: tuple[str, ...] = ()

    _model: Any  # of classes that transformers types for itself alone
    _tokenizer: Any

    def __init__(self, folder: Path) -> None:
        """Errors: MissingPackageError; ExportError where the folder does not load."""
        if importlib.util.find_spec("transformers") is None:
            raise MissingPackageError("transformers", "export")
        if importlib.util.find_spec("xielu") is not None and _model_type(folder) == "apertus":
            raise ExportError(
                "the package xielu is installed: its CUDA kernel computes Apertus with beta = 0.5 whatever the weights "
                "say, so this model would be another one; pip uninstall xielu"
            )
        import transformers

        self.name = f"transformers {transformers.__version__}"
        with _quietly():
            try:
                self._tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
                loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(
                    folder,
                    dtype=torch.float32,
                    local_files_only=True,
                    trust_remote_code=(folder / CODE_FILE).is_file(),
                    output_loading_info=True,
                )
            except (ValueError, OSError, KeyError) as error:
                reason = str(error).splitlines()[0]
                raise ExportError(
                    f"{self.name} cannot load the exported model: {reason}; pip install --upgrade transformers"
                ) from error
        self._model, report = loaded
        wrong = {key: sorted(value) for key, value in report.items() if value}
        if wrong:
            raise ExportError(f"{self.name} does not find the weights that it expects: {wrong}")
        self.class_name = type(self._model).__name__
        self._model.eval()
        # Beginnings are answered at equal length, whatever is said.
        self._model.generation_config.eos_token_id = None
        self._model.generation_config.pad_token_id = 0

    @torch.no_grad()
    def logits(self, ids: Sequence[int], places: Sequence[int]) -> Tensor:
        kept = torch.tensor(places)
        found: Tensor = self._model(torch.tensor([ids]), use_cache=False, logits_to_keep=kept).logits[0]
        return found.float()

    @torch.no_grad()
    def greedy(self, beginnings: Sequence[Sequence[int]], count: int) -> list[list[int]]:
        longest = max(map(len, beginnings))
        rows = torch.zeros(len(beginnings), longest, dtype=torch.long)
        mask = torch.zeros_like(rows)
        for index, beginning in enumerate(beginnings):
            rows[index, longest - len(beginning) :] = torch.tensor(beginning)
            mask[index, longest - len(beginning) :] = 1
        with _quietly():
            out = self._model.generate(
                rows,
                attention_mask=mask,
                max_new_tokens=count,
                do_sample=False,
            )
        answers: list[list[int]] = out[:, longest:].tolist()
        return answers

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        found: list[list[int]] = self._tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return found

    def check_template(self, form: Format) -> None:
        """Errors: ExportError where the chat template writes other ids than the format that the model learned."""
        for conversation in _CONVERSATIONS:
            theirs = self._tokenizer.apply_chat_template(
                [message.to_json() for message in conversation.messages],
                tools=[tool.to_json() for tool in conversation.tools] or None,
                return_dict=True,
            )["input_ids"]
            if form.render(conversation).ids.tolist() != list(theirs):
                raise ExportError(f"{self.name}: the chat template writes other ids than the model was trained on")


def _model_type(folder: Path) -> str:
    kind: str = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))["model_type"]
    return kind


@contextmanager
def _quietly() -> Iterator[None]:
    """transformers without its progress bars and advice."""
    from transformers.utils import logging as typed_logging

    logging: Any = typed_logging
    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()


_TOOL: dict[str, Any] = {"type": "object", "properties": {"expression": {"type": "string"}}}
_CONVERSATIONS = (
    Conversation((Message("user", "Hi"), Message("assistant", "Hello.", reasoning_content="A greeting."))),
    Conversation(
        (
            Message("system", "You are Ada."),
            Message("user", "What is 17 * 45?\n"),
            Message("assistant", "", "It needs the tool.", (ToolCall("c1", "calculator", {"expression": "17 * 45"}),)),
            Message("tool", "765", tool_call_id="c1"),
            Message("assistant", "765."),
        ),
        (ToolSchema("calculator", "Works it out.", _TOOL),),
    ),
)
