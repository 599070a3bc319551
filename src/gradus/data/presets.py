"""Ready corpora: for each its licence, size, homepage and columns, and the source settings that read it.

Every figure has its source beside it; one that could not be verified is absent. Commits are pinned where the figures
were counted at one, so that a preset means the same content tomorrow.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pydantic import field_validator, model_validator

from gradus.core.errors import did_you_mean
from gradus.data.hub import HubSource
from gradus.data.manifests import ManifestSource
from gradus.data.remote_settings import Transport


class PresetSource(Transport):
    """A ready corpus.

    name: climbmix, fineweb-edu-10bt, nemotron-cc-math, stack-v2-python, open-web-math, wikipedia, refinedweb, dolma,
    redpajama, c4, stackexchange, github-code or books. revision: another branch, tag or commit than the one it is
    pinned to.
    """

    kind: Literal["preset"] = "preset"
    name: str
    revision: str | None = None

    @field_validator("name")
    @classmethod
    def _name_is_known(cls, name: str) -> str:
        if name not in PRESETS:
            hint = did_you_mean(name, PRESETS) or f"; presets are {', '.join(PRESETS)}"
            raise ValueError(f'no preset corpus "{name}"{hint}')
        return name

    @model_validator(mode="after")
    def _revision_is_of_a_dataset(self) -> PresetSource:
        if self.revision is not None and isinstance(self.preset.source, ManifestSource):
            raise ValueError(f'"{self.name}" is a list of addresses and has no revision')
        return self

    @property
    def preset(self) -> Preset:
        """The entry of the table."""
        return PRESETS[self.name]

    def resolved(self) -> HubSource | ManifestSource:
        """What it stands for, with this source's limit and transport; its documents carry the preset's name."""
        changes = {name: getattr(self, name) for name in Transport.model_fields} | {"name": self.name}
        if self.revision is not None:
            changes["revision"] = self.revision
        return self.preset.source.model_copy(update=changes)


@dataclass(frozen=True)
class Preset:
    """One ready corpus.

    columns: of its rows, as far as they are known. documents, tokens, text_bytes, download_bytes: as published or
    counted, None where not verified; tokenizer: whose tokens. gated: its terms are to be accepted on its page, and
    HF_TOKEN set. notes: what to know before use.
    """

    title: str
    licence: str
    homepage: str
    source: HubSource | ManifestSource
    columns: tuple[str, ...]
    documents: int | None = None
    tokens: float | None = None
    tokenizer: str = ""
    text_bytes: float | None = None
    download_bytes: float | None = None
    gated: bool = False
    notes: str = field(default="")


PRESETS: dict[str, Preset] = {
    # Card of nvidia/ClimbMix: 400 B tokens, CC BY-NC 4.0, GPT-2 tokens and no text. The text: nanochat's repackaging,
    # shard_00000 to shard_06542, the last of which nanochat validates on.
    "climbmix": Preset(
        title="ClimbMix, 400 B tokens, as text and shuffled",
        licence="CC BY-NC 4.0 (of nvidia/ClimbMix: research and development only)",
        homepage="https://huggingface.co/datasets/karpathy/climbmix-400b-shuffle",
        source=HubSource(
            repo="karpathy/climbmix-400b-shuffle",
            path="shard_*.parquet",
            revision="915333b4f8b8684f39aeaafea600fea6f43fb703",
        ),
        columns=("text",),
        tokens=400e9,
        tokenizer="GPT-2",
        notes="NVIDIA publishes token ids; this is a third party's text of them.",
    ),
    # Parquet footers at this commit: 14 files, 28,518,193,415 bytes, 9,672,101 rows, sum(token_count) 9,972,918,177;
    # 45.97 GB of text. Columns and config: the dataset's card.
    "fineweb-edu-10bt": Preset(
        title="FineWeb-Edu, sample of 10 B tokens",
        licence="ODC-By 1.0",
        homepage="https://huggingface.co/datasets/HuggingFaceFW/fineweb-edu",
        source=HubSource(
            repo="HuggingFaceFW/fineweb-edu",
            config="sample-10BT",
            revision="87f09149ef4734204d70ed1d046ddc9ca3f2b8f9",
            id_key="id",
            url_key="url",
        ),
        columns=(
            "text",
            "id",
            "dump",
            "url",
            "file_path",
            "language",
            "language_score",
            "token_count",
            "score",
            "int_score",
        ),
        documents=9_672_101,
        tokens=9_972_918_177,
        tokenizer="GPT-2",
        text_bytes=45.97e9,
        download_bytes=28_518_193_415,
    ),
    # Card: configs 3, 4plus and 4plus_MIND; paper "Nemotron-CC-Math" (Mahabadi et al. 2025): 133 B tokens in all, 52 B
    # of them scored 4 and 5. Gated.
    "nemotron-cc-math": Preset(
        title="Nemotron-CC-Math v1, documents scored 4 and 5",
        licence="NVIDIA Data Agreement for Model Training",
        homepage="https://huggingface.co/datasets/nvidia/Nemotron-CC-Math-v1",
        source=HubSource(
            repo="nvidia/Nemotron-CC-Math-v1", config="4plus", revision="397a2502f2028c659ba411a6c4935b464a7f03aa"
        ),
        columns=("text",),
        tokens=52e9,
        gated=True,
        notes="Accept the agreement on its page and set HF_TOKEN; its list of files is public, its files are not.",
    ),
    # bigcode/the-stack-v2 and HuggingFaceTB/stack-edu hold Software Heritage ids and no text, which needs an agreement
    # for bulk access. Common Pile's re-filtering holds the text: 95 gzip shards at this commit, of which 0073 to 0084
    # are Python (11,716,959,758 bytes); fields counted on the records.
    "stack-v2-python": Preset(
        title="The Stack v2, Python, educational and openly licensed (Common Pile)",
        licence="of each file, in metadata.license; chosen by the Blue Oak Council's list",
        homepage="https://huggingface.co/datasets/common-pile/stackv2_edu_filtered",
        source=HubSource(
            repo="common-pile/stackv2_edu_filtered",
            path=("stack-edu-007[3-9].json.gz", "stack-edu-008[0-4].json.gz"),
            revision="c354dbe88469a1153e97c6a63ac50591849654de",
            id_key="id",
            url_key="metadata.url",
            where={"metadata.language": "Python"},
        ),
        columns=("text", "id", "source", "added", "created", "score", "int_score", "metadata"),
        download_bytes=11_716_959_758,
        notes="The original dataset holds ids without text; this variant with text needs no further credentials.",
    ),
    # Card: 6,315,233 examples, 14.7 B tokens, ODC-By 1.0. 48,737,242,606 characters: HPLT's table.
    "open-web-math": Preset(
        title="OpenWebMath",
        licence="ODC-By 1.0; Common Crawl's terms of use",
        homepage="https://huggingface.co/datasets/open-web-math/open-web-math",
        source=HubSource(
            repo="open-web-math/open-web-math",
            path="data/train-*.parquet",
            revision="fde8ef8de2300f5e778f56261843dab89f230815",
            url_key="url",
        ),
        columns=("url", "text", "date", "metadata"),
        documents=6_315_233,
        tokens=14.7e9,
    ),
    # Card at this commit: 41 files, 6,407,814 examples, 11,630,929,031 bytes to download, 20,200,062,385 decoded.
    "wikipedia": Preset(
        title="English Wikipedia of 2023-11-01",
        licence="CC BY-SA 3.0 and GFDL",
        homepage="https://huggingface.co/datasets/wikimedia/wikipedia",
        source=HubSource(
            repo="wikimedia/wikipedia",
            config="20231101.en",
            revision="b04c8d1ceb2f5cd4588862100d08de323dccfbaa",
            text_key=("title", "text"),
            id_key="id",
            url_key="url",
        ),
        columns=("id", "url", "title", "text"),
        documents=6_407_814,
        text_bytes=20_200_062_385,
        download_bytes=11_630_929_031,
        notes="The title stands above each article. Share-alike.",
    ),
    # Dataset viewer and nhagar/falcon_urls: 968,000,015 rows; licence tag odc-by; the text is in "content".
    "refinedweb": Preset(
        title="Falcon RefinedWeb, the public extract",
        licence="ODC-By 1.0; Common Crawl's terms of use",
        homepage="https://huggingface.co/datasets/tiiuae/falcon-refinedweb",
        source=HubSource(
            repo="tiiuae/falcon-refinedweb",
            path="data/train-*.parquet",
            revision="bc825874e9aa41190fe71c55a538669e953e36c5",
            text_key="content",
            url_key="url",
        ),
        columns=("content", "url"),
        documents=968_000_015,
    ),
    # Card: version 1.7, 3 trillion tokens, 4.5 TB of gzip, ODC-By; urls/v1_7.txt lists 2,419 files of JSON lines.
    "dolma": Preset(
        title="Dolma 1.7",
        licence="ODC-By 1.0",
        homepage="https://huggingface.co/datasets/allenai/dolma",
        source=ManifestSource(path="hf://datasets/allenai/dolma/urls/v1_7.txt", id_key="id"),
        columns=("text", "id"),
        tokens=3e12,
        download_bytes=4.5e12,
        notes="The shards stand on AI2's server, listed by the dataset. Set a limit.",
    ),
    # Card: 2,084 files, 1.2 T tokens with the books, which are not given out any more; urls/ lists the others.
    "redpajama": Preset(
        title="RedPajama 1T without its books",
        licence="of its parts: Common Crawl, C4, permissive GitHub, arXiv, CC BY-SA Wikipedia and Stack Exchange",
        homepage="https://huggingface.co/datasets/togethercomputer/RedPajama-Data-1T",
        source=ManifestSource(
            path=tuple(
                f"hf://datasets/togethercomputer/RedPajama-Data-1T/urls/{part}.txt"
                for part in ("common_crawl", "c4", "github", "arxiv", "wikipedia", "stackexchange")
            ),
        ),
        columns=("text", "meta"),
        tokens=1.2e12 - 26e9,
        notes="The shards stand on Together's server, listed by the dataset. Set a limit.",
    ),
    # 364,868,892 documents of the split train, 1,024 files; card: 305 GB; 198,079,554,945 tokens of Llama 2
    # (infini-gram's index).
    "c4": Preset(
        title="C4, English",
        licence="ODC-By 1.0; Common Crawl's terms of use",
        homepage="https://huggingface.co/datasets/allenai/c4",
        source=HubSource(
            repo="allenai/c4",
            path="en/c4-train.*.json.gz",
            revision="1588ec454efa1a09f29cd18ddd04fe05fc8653a2",
            url_key="url",
        ),
        columns=("text", "timestamp", "url"),
        documents=364_868_892,
        tokens=198_079_554_945,
        tokenizer="Llama 2",
        download_bytes=305e9,
    ),
    # Card: 30,987,814 documents, 89.7 GB of UTF-8; one document is a question with its answers.
    "stackexchange": Preset(
        title="Stack Exchange, threads as plain text (Common Pile)",
        licence="CC BY-SA of the post's date, in metadata",
        homepage="https://huggingface.co/datasets/common-pile/stackexchange_filtered",
        source=HubSource(
            repo="common-pile/stackexchange_filtered",
            path="stackexchange-dolma-*.json.gz",
            revision="c0ac7373830c688a43fc12d1988c4b19ccd884ab",
            id_key="id",
        ),
        columns=("text", "id", "source", "added", "created", "metadata"),
        documents=30_987_814,
        text_bytes=89.7e9,
        notes="Share-alike.",
    ),
    # 880 files, 314 GB; the columns are its README's and loading script's.
    "github-code": Preset(
        title="GitHub code, cleaned, many languages",
        licence="of each file, in the column license",
        homepage="https://huggingface.co/datasets/codeparrot/github-code-clean",
        source=HubSource(
            repo="codeparrot/github-code-clean",
            path="data/train-*.parquet",
            revision="c48d40f9e70f0196f8236901ee35807f7d6c44c0",
            text_key="code",
        ),
        columns=("code", "repo_name", "path", "language", "license", "size"),
        download_bytes=314e9,
        notes='For one language, write it as kind = "hub" with where = { language = "Python" }.',
    ),
    # 15 gzip files of 7.6 GB at this commit; each record's licence is "Public Domain".
    "books": Preset(
        title="Project Gutenberg, English, public domain (Common Pile)",
        licence="public domain in the United States",
        homepage="https://huggingface.co/datasets/common-pile/project_gutenberg_filtered",
        source=HubSource(
            repo="common-pile/project_gutenberg_filtered",
            path="project_gutenberg-dolma-*.json.gz",
            revision="3cdf6879c807f4e4e063f2ceb23bc268d8c29ab7",
            id_key="id",
            url_key="metadata.url",
        ),
        columns=("text", "id", "source", "added", "metadata"),
        download_bytes=7.6e9,
    ),
}
