"""Ready sets of conversations and of preference pairs: for each its licence, columns and layout, and where it lies.

Repositories, configurations, splits and columns are those of the datasets' cards; a figure that was not counted on the
files themselves is the card's. None is pinned to a commit: the plan prints the one that `main` is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gradus.data.conversation_sources import PoolHub


@dataclass(frozen=True)
class ConversationPreset:
    """One ready set.

    columns: of its rows, those that are read. rows: of the split, by its card, None where not known. makes:
    conversations for a pool, or preference pairs. notes: what to know before use.
    """

    title: str
    licence: str
    source: PoolHub
    columns: tuple[str, ...]
    rows: int | None = None
    makes: str = "conversations"
    notes: str = ""

    @property
    def homepage(self) -> str:
        return f"https://huggingface.co/datasets/{self.source.repo}"


PAIRS = "pairs"
_MATH_SUBJECTS = (
    "algebra", "counting_and_probability", "geometry", "intermediate_algebra", "number_theory", "prealgebra",
    "precalculus",
)  # fmt: skip

CONVERSATION_PRESETS: Mapping[str, ConversationPreset] = {
    "smoltalk": ConversationPreset(
        title="SmolTalk, all parts",
        licence="Apache-2.0 for its own parts; each public part under its own licence",
        source=PoolHub(repo="HuggingFaceTB/smoltalk", config="all", name="smoltalk", shape="messages"),
        columns=("messages",),
        rows=1_043_917,
    ),
    "smol-smoltalk": ConversationPreset(
        title="SmolTalk for models below 1 B parameters: shorter, without function calls (nanochat's 460 K)",
        licence="Apache-2.0 for its own parts; each public part under its own licence",
        source=PoolHub(repo="HuggingFaceTB/smol-smoltalk", name="smol-smoltalk", shape="messages"),
        columns=("messages",),
        rows=460_341,
    ),
    "ultrachat": ConversationPreset(
        title="UltraChat, the filtered 200 K",
        licence="MIT",
        source=PoolHub(repo="HuggingFaceH4/ultrachat_200k", split="train_sft", name="ultrachat", shape="messages"),
        columns=("messages",),
        rows=207_865,
    ),
    "sharegpt": ConversationPreset(
        title="ShareGPT, cleaned and split (Vicuna, unfiltered)",
        licence="Apache-2.0 by its card; conversations that users shared, with outputs of ChatGPT",
        source=PoolHub(
            repo="anon8231489123/ShareGPT_Vicuna_unfiltered",
            path="ShareGPT_V3_unfiltered_cleaned_split.json",
            name="sharegpt",
            shape="sharegpt",
        ),
        columns=("conversations",),
        notes="Many languages, and long conversations in parts that begin with the assistant, which are dropped.",
    ),
    "glaive-function-calling": ConversationPreset(
        title="Glaive function calling v2",
        licence="Apache-2.0",
        source=PoolHub(
            repo="glaiveai/glaive-function-calling-v2",
            path="glaive-function-calling-v2.json",
            name="glaive-function-calling",
            shape="glaive",
        ),
        columns=("system", "chat"),
        rows=112_960,
    ),
    "gsm8k": ConversationPreset(
        title="GSM8K, worked answers with calculator calls",
        licence="MIT",
        source=PoolHub(repo="openai/gsm8k", config="main", name="gsm8k", shape="question"),
        columns=("question", "answer"),
        rows=7_473,
    ),
    "aqua": ConversationPreset(
        title="AQuA-RAT, algebra with rationales and five choices",
        licence="Apache-2.0",
        source=PoolHub(repo="deepmind/aqua_rat", config="raw", name="aqua", shape="choices"),
        columns=("question", "options", "rationale", "correct"),
        rows=97_467,
    ),
    "math": ConversationPreset(
        title="MATH, competition problems with solutions, all seven subjects",
        licence="MIT",
        source=PoolHub(
            repo="EleutherAI/hendrycks_math",
            path=tuple(f"{subject}/train-*.parquet" for subject in _MATH_SUBJECTS),
            name="math",
            shape="problem_solution",
        ),
        columns=("problem", "solution"),
        rows=7_500,
    ),
    "openr1-math": ConversationPreset(
        title="OpenR1-Math-220k, default part: DeepSeek R1 on competition problems",
        licence="Apache-2.0",
        source=PoolHub(repo="open-r1/OpenR1-Math-220k", config="default", name="openr1-math", shape="messages"),
        columns=("messages",),
        rows=93_733,
    ),
    "openthoughts": ConversationPreset(
        title="OpenThoughts-114k: DeepSeek R1 on mathematics, science, code and puzzles",
        licence="Apache-2.0",
        source=PoolHub(repo="open-thoughts/OpenThoughts-114k", config="default", name="openthoughts", shape="sharegpt"),
        columns=("system", "conversations"),
        rows=113_957,
    ),
    "limo": ConversationPreset(
        title="LIMO: 817 problems with long, curated solutions",
        licence="Apache-2.0",
        source=PoolHub(repo="GAIR/LIMO", name="limo", shape="long_solution"),
        columns=("question", "solution", "answer"),
        rows=817,
        notes="The solution is thinking aloud; its last section, or else the answer, is what is said.",
    ),
    "openmathreasoning": ConversationPreset(
        title="OpenMathReasoning, chains of thought",
        licence="CC BY 4.0",
        source=PoolHub(
            repo="nvidia/OpenMathReasoning", split="cot", name="openmathreasoning", shape="generated_solution"
        ),
        columns=("problem", "generated_solution"),
        notes="Millions of rows: set max_rows.",
    ),
    "numinamath-cot": ConversationPreset(
        title="NuminaMath-CoT: problems with worked solutions, no separate thinking",
        licence="Apache-2.0",
        source=PoolHub(repo="AI-MO/NuminaMath-CoT", name="numinamath-cot", shape="messages"),
        columns=("messages",),
        rows=859_494,
    ),
    "sky-t1": ConversationPreset(
        title="Sky-T1 17k: QwQ on mathematics, code and science",
        licence="Apache-2.0 by its project; its card states none",
        source=PoolHub(repo="NovaSky-AI/Sky-T1_data_17k", name="sky-t1", shape="sharegpt"),
        columns=("system", "conversations"),
    ),
    "capybara-pairs": ConversationPreset(
        title="Capybara, 7 K multi-turn preference pairs",
        licence="Apache-2.0",
        source=PoolHub(
            repo="argilla/distilabel-capybara-dpo-7k-binarized", name="capybara-pairs", shape="whole_preference"
        ),
        columns=("chosen", "rejected"),
        rows=7_563,
        makes=PAIRS,
    ),
    "orca-pairs": ConversationPreset(
        title="Intel Orca pairs, rated again; ties left out",
        licence="Apache-2.0",
        source=PoolHub(
            repo="argilla/distilabel-intel-orca-dpo-pairs",
            name="orca-pairs",
            shape="input_preference",
            where={"status": ("unchanged", "swapped")},
        ),
        columns=("system", "input", "chosen", "rejected", "status"),
        rows=12_859,
        makes=PAIRS,
        notes='Some prompts are of GSM8K\'s training part: column "in_gsm8k_train".',
    ),
    "ultrafeedback-pairs": ConversationPreset(
        title="UltraFeedback, binarized",
        licence="MIT",
        source=PoolHub(
            repo="HuggingFaceH4/ultrafeedback_binarized",
            split="train_prefs",
            name="ultrafeedback-pairs",
            shape="whole_preference",
        ),
        columns=("chosen", "rejected"),
        rows=61_135,
        makes=PAIRS,
    ),
}
