"""What a roadmap says of leaving this machine: the `[push]` table, a place's address, and how a model is exported."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from gradus.core.errors import ConfigError
from gradus.core.quantity import Quantity
from gradus.core.settings import Settings

_HUB = re.compile(r"hub:[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_ADDRESS = re.compile(r"(?P<protocol>[a-z][a-z0-9+.-]*)://(?P<rest>[^\s?#]+)")
_LICENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]*")
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]+)*")
# What the gguf package writes; then what llama.cpp's quantiser does.
GgufType = Literal[
    "f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "q6_k", "q5_k_m", "q4_k_m", "q3_k_m", "q2_k"
]  # fmt: skip
# The mean divergence that rounding may cost, in nats a token; measured in EXPERIMENTS.md.
MOST_NATS = {
    "f32": 1e-6, "float16": 1e-3, "f16": 1e-3, "bfloat16": 0.01, "bf16": 0.01, "q8_0": 0.02, "q5_1": 0.1, "q5_0": 0.1,
    "q4_1": 0.3, "q4_0": 0.3, "q6_k": 0.03, "q5_k_m": 0.06, "q4_k_m": 0.2, "q3_k_m": 0.5, "q2_k": 1.5,
}  # fmt: skip
FORMS = '"hub:owner/name", "file:///folder", "s3://bucket/folder" or another address that fsspec knows'


class PushSettings(Settings):
    """The `[push]` table: where checkpoints, artifacts and records are sent while a roadmap is walked.

    to: "hub:owner/name", "file:///folder", "s3://bucket/folder" or another address that fsspec knows; keys come from
    the environment or a file of their owner alone, never from here. every: how far apart checkpoints are that are
    sent; the last one of a stage always is. wait_seconds: how long a walk that has ended waits for what is still
    being sent, before it says what is missing and leaves the rest to the process that sends.
    """

    to: str
    every: Quantity = Quantity(100.0, "steps")
    wait_seconds: float = Field(default=60.0, ge=0)

    @field_validator("to")
    @classmethod
    def _to_is_a_place(cls, to: str) -> str:
        try:
            return checked_address(to)
        except ConfigError as error:
            raise ValueError(str(error)) from None

    @field_validator("every")
    @classmethod
    def _every_counts_steps(cls, every: Quantity) -> Quantity:
        if every.unit != "steps":
            raise ValueError(f'expected a whole number of steps, such as "100 steps", found "{every}"')
        return every


def checked_address(text: str) -> str:
    """The address of a place, without a slash at its end. Errors: ConfigError, which never repeats a password."""
    if _HUB.fullmatch(text):
        return text
    found = _ADDRESS.fullmatch(text)
    if found is None:
        hint = f'; a folder is written "file://{text}"' if text.startswith("/") else ""
        shown = text if "@" not in text and "?" not in text else "another form"
        raise ConfigError(f'expected a place, {FORMS}, found "{shown}"{hint}')
    if "@" in found["rest"].split("/")[0]:
        raise ConfigError(
            "an address must hold no name or password: give them in the environment (AWS_ACCESS_KEY_ID, "
            "AWS_SECRET_ACCESS_KEY) or in a file that only you can read"
        )
    if found["protocol"] == "file" and not found["rest"].startswith("/"):
        raise ConfigError(f'"{text}" needs three slashes and a whole path, such as file:///backup/runs')
    return text.rstrip("/")


class ExportSettings(Settings):
    """How a model is written for other programs.

    formats: "transformers", a folder of safetensors, config and tokenizer, which vLLM takes too; "gguf", files for
    llama.cpp; "ollama", a Modelfile beside the first of them. dtype: of the folder's weights; fp32 is the model as it
    was trained. gguf_types: one file for each. licence: of the weights, by its SPDX name, for the card; languages: by
    their codes, such as "en"; title: of the card. system: the system message that Ollama begins with.
    prompts: how many beginnings are answered greedily by both sides; check_tokens: at most so many tokens of text are
    read by both, of the training row and an eighth more.
    """

    formats: tuple[Literal["transformers", "gguf", "ollama"], ...] = Field(default=("transformers",), min_length=1)
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    gguf_types: tuple[GgufType, ...] = Field(default=("f16",), min_length=1)
    licence: str | None = None
    languages: tuple[str, ...] = ()
    title: str | None = Field(default=None, min_length=1, max_length=96)
    system: str | None = None
    prompts: int = Field(default=50, ge=1)
    check_tokens: int = Field(default=32_768, ge=64)

    @field_validator("formats", "gguf_types", "languages")
    @classmethod
    def _each_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) < len(names):
            raise ValueError(f"named twice: {', '.join(sorted({n for n in names if names.count(n) > 1}))}")
        return names

    @field_validator("licence")
    @classmethod
    def _licence_is_a_name(cls, licence: str | None) -> str | None:
        if licence is not None and _LICENCE.fullmatch(licence) is None:
            raise ValueError(f'expected the SPDX name of a licence, such as "apache-2.0", found "{licence}"')
        return licence

    @field_validator("languages")
    @classmethod
    def _languages_are_codes(cls, languages: tuple[str, ...]) -> tuple[str, ...]:
        wrong = [code for code in languages if _LANGUAGE.fullmatch(code) is None]
        if wrong:
            raise ValueError(f'expected codes of languages, such as "en", found "{wrong[0]}"')
        return languages

    @model_validator(mode="after")
    def _nothing_is_idle(self) -> ExportSettings:
        users = {"dtype": ("transformers",), "gguf_types": ("gguf", "ollama"), "system": ("ollama",)}
        for name, formats in users.items():
            given = getattr(self, name) != ExportSettings.model_fields[name].default
            if given and not set(formats) & set(self.formats):
                wanted = " or ".join(f'"{form}"' for form in formats)
                raise ValueError(f"{name} needs {wanted} in formats")
        return self

    @property
    def wants_gguf(self) -> bool:
        """Whether any file for llama.cpp is written; Ollama reads one."""
        return "gguf" in self.formats or "ollama" in self.formats
