"""A gradus model for lm-eval, EleutherAI's evaluation harness: any of its tasks, scored by our engine.

`gradus eval harness` runs tasks by name. `python -m gradus.eval.harness --model gradus ...` is lm-eval's own command
with this model known to it, since `lm_eval` has no way to learn of models of other packages. Importing this file needs
lm-eval.

Text goes through the tokenizer with its control tokens enabled, as transformers does it, so that templated prompts
reach the model as it was trained. batch_size is taken and not needed: batches are filled by tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from tokenizers import Tokenizer as Backend

from gradus.conversation.chat_template import TemplateRenderer
from gradus.conversation.messages import Conversation, Message
from gradus.core.errors import ConfigError
from gradus.engine.continuation import Beginning, continue_all
from gradus.engine.load import load_engine
from gradus.engine.sampling import Sampling
from gradus.eval.asked import Continuation, Likelihood
from gradus.eval.likelihood import TOKENS_PER_BATCH, likelihoods
from gradus.eval.perplexity import document_windows
from gradus.model.precision import DecodePrecision
from gradus.tokenizer.specials import END_OF_TEXT, IM_END

MAX_GENERATED_TOKENS = 256
_PRECISIONS: dict[str, DecodePrecision] = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


@register_model("gradus")
class GradusLM(TemplateLM):  # type: ignore[misc]
    """The model of a folder.

    pretrained: the folder; tokenizer: another one for its tokenizer. think: whether templated answers think first
    (True), not (False), or as the model likes (None). tokens_per_batch: read at once. add_bos_token: begin every text
    with the end-of-text token, as in training.
    """

    def __init__(
        self,
        pretrained: str,
        tokenizer: str | None = None,
        device: str | None = None,
        dtype: str = "float32",
        think: bool | None = None,
        tokens_per_batch: int = TOKENS_PER_BATCH,
        add_bos_token: bool = False,
        batch_size: int | str = 1,
        max_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        self._folder = Path(pretrained)
        if dtype not in _PRECISIONS:
            raise ConfigError(f'dtype takes {", ".join(_PRECISIONS)}, found "{dtype}"')
        self.engine = load_engine(
            self._folder, tokenizer_folder=tokenizer, device=device or "cpu", precision=_PRECISIONS[dtype]
        )
        self.think = think
        self._tokens_per_batch = int(tokens_per_batch)
        self._bos = bool(add_bos_token)
        self._template = TemplateRenderer(self.engine.form)
        self._backend = Backend.from_str(self.engine.tokenizer.to_json())

    # Facts

    @property
    def eot_token_id(self) -> int:
        return self.engine.tokenizer.special(END_OF_TEXT)

    @property
    def max_length(self) -> int:
        """Tokens of the context."""
        return self.engine.model.config.context

    @property
    def max_gen_toks(self) -> int:
        """Tokens generated where a task says nothing."""
        return min(MAX_GENERATED_TOKENS, self.max_length // 2)

    @property
    def tokenizer_name(self) -> str:
        """For the names of cached requests; templates and vocabulary decide it."""
        return f"{self._folder.name}__{self.engine.tokenizer.digest[:16]}"

    # Text

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        ids = list(self._backend.encode(string, add_special_tokens=False).ids)
        wanted = self._bos if add_special_tokens is None else add_special_tokens and self._bos
        return [self.eot_token_id, *ids] if wanted and ids[:1] != [self.eot_token_id] else ids

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        return self.engine.form.chat_template if chat_template else None

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        messages = tuple(Message(entry["role"], entry["content"]) for entry in chat_history)  # type: ignore[arg-type]
        text = self._template.text(Conversation(messages, think=self.think), add_generation_prompt)
        if add_generation_prompt:
            return text
        # The last message is to be gone on with.
        return text[: text.rindex(IM_END)]

    # Requests

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], disable_tqdm: bool = False, **kwargs: Any
    ) -> list[tuple[float, bool]]:
        """Requests on one context, such as the choices of an item, are one question."""
        by_context: dict[tuple[int, ...], list[int]] = {}
        for number, (_, context, _told) in enumerate(requests):
            by_context.setdefault(tuple(context), []).append(number)
        members = list(by_context.values())
        questions = [[Continuation(requests[n][1], requests[n][2]) for n in numbers] for numbers in members]
        found: dict[int, tuple[float, bool]] = {}
        for place, answers in self._likelihoods(questions):
            for number, answer in zip(members[place], answers, strict=True):
                found[number] = (answer.logp, answer.is_greedy)
                self.cache_hook.add_partial("loglikelihood", requests[number][0], found[number])
        return [found[number] for number in range(len(requests))]

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        windows, owners = [], []
        for number, request in enumerate(requests):
            for window in document_windows(self.tok_encode(request.args[0]), self.prefix_token_id, self.max_length):
                windows.append([window])
                owners.append(number)
        totals = [0.0] * len(requests)
        for place, (answer,) in self._likelihoods(windows):
            totals[owners[place]] += answer.logp
        return totals

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        beginnings = [self._beginning(*request.args) for request in requests]
        return continue_all(self.engine.model, self.engine.tokenizer, beginnings)

    def _likelihoods(self, questions: Sequence[Sequence[Continuation]]) -> list[tuple[int, list[Likelihood]]]:
        return list(likelihoods(self.engine.model, questions, tokens_per_batch=self._tokens_per_batch))

    def _beginning(self, context: str, options: dict[str, Any]) -> Beginning:
        until = options.get("until") or ()
        length = min(int(options.get("max_gen_toks") or self.max_gen_toks), self.max_length - 1)
        ids = self.tok_encode(context)[-(self.max_length - length) :] or [self.eot_token_id]
        draws = bool(options.get("do_sample", float(options.get("temperature") or 0.0) > 0))
        sampling = Sampling(
            temperature=float(options.get("temperature") or 1.0) if draws else 0.0,
            top_k=options.get("top_k") or None,
            top_p=options.get("top_p") or None,
        )
        stops = tuple(name for name in (END_OF_TEXT, IM_END) if name in self.engine.tokenizer.special_tokens)
        texts = (until,) if isinstance(until, str) else tuple(until)
        return Beginning(ids, sampling, length, tuple(text for text in texts if text not in stops), stops)


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()
