"""Running a probe suite: every question through the engine at once, every answer judged by its checks.

Only the answer is read, by the checks of the probe file. A conversation that outgrows the context through
the model's own earlier answers fails its probe; anything else that goes wrong is an error of ours or of the
suite and is raised.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from gradus.conversation.artifacts import find_loops
from gradus.conversation.checks import AssistantTurn, Calls, Citation, run_checks
from gradus.conversation.constraint import Constraint
from gradus.conversation.messages import Conversation, Message
from gradus.conversation.probes import Probe, Suite
from gradus.core.errors import DataError
from gradus.core.fingerprint import digest
from gradus.engine.engine import Engine
from gradus.engine.sampling import GREEDY, Sampling
from gradus.engine.turn import PromptTooLongError, Reply, Request
from gradus.eval.judging import JudgeModel, check_fault, check_judge, check_prompt
from gradus.eval.result import ItemResult, SampleResult, SuiteResult


@dataclass(frozen=True)
class ProbeSettings:
    """How a suite is run.

    samples: answers a probe, None for each probe's own number. sampling: its seed starts the streams of all
    samples; at temperature 0 several samples would be the same, so there is one. think, tools: for probes
    that leave them open; tools None declares none. max_tokens, max_calls, constrain: of each answer. judge: who decides
    checks of the kind "judge".
    """

    samples: int | None = None
    sampling: Sampling = GREEDY
    think: bool | None = None
    tools: tuple[str, ...] | None = None
    max_tokens: int = 512
    max_calls: int = 4
    constrain: Constraint | None = None
    judge: JudgeModel | None = None


@dataclass(frozen=True)
class Variant:
    """What is taken from every probe of a suite, whatever the probe itself says."""

    without_tools: bool = False
    without_thinking: bool = False


VARIANTS = {
    "as written": Variant(),
    "without tools": Variant(without_tools=True),
    "without thinking": Variant(without_thinking=True),
    "without both": Variant(without_tools=True, without_thinking=True),
}


def varied(suite: Suite, variant: Variant) -> Suite:
    """The suite without tools or thinking.

    Without tools no check asks for a call or a source; a probe that checked nothing else is left out.
    """
    probes = []
    for probe in suite.probes:
        if variant.without_thinking:
            probe = probe.model_copy(update={"think": False})
        if variant.without_tools:
            checks = tuple(check for check in probe.checks if not isinstance(check, Calls | Citation))
            probe = probe.model_copy(update={"tools": (), "checks": checks})
        if probe.checks:
            probes.append(probe)
    return replace(suite, probes=tuple(probes))


class _Dialogue:
    """One sample of one probe, on its way through its turns."""

    def __init__(self, probe: Probe, sample: int, settings: ProbeSettings) -> None:
        self.probe = probe
        self.sample = sample
        self.settings = settings
        self.tools = probe.tools if probe.tools is not None else settings.tools or ()
        self.conversation: Conversation = probe.first_prompt()
        self.later = list(probe.later_turns)
        self.num_tokens = 0
        self.result: SampleResult | None = None
        self.to_judge: tuple[tuple[Message, ...], str] | None = None  # what was asked, and the answer

    def request(self) -> Request:
        """What to ask next. Each turn draws from a stream of its own."""
        sampling = self.settings.sampling
        stream = digest([sampling.seed, self.probe.id, self.sample, len(self.later)])
        return Request(
            self.conversation,
            think=self.probe.think if self.probe.think is not None else self.settings.think,
            tools=self.tools,
            sampling=sampling.model_copy(update={"seed": int(stream[:16], 16)}),
            max_tokens=self.settings.max_tokens,
            max_calls=self.settings.max_calls,
            constrain=self.settings.constrain,
        )

    def take(self, reply: Reply) -> None:
        """Judge the last answer, or ask on."""
        self.num_tokens += reply.num_tokens
        if not self.later:
            self.result = _judged(self.probe, reply.turn, self.num_tokens)
            self.to_judge = self.conversation.messages, reply.turn.answer
            return
        question = Message("user", self.later.pop(0))
        messages = (*self.conversation.messages, *reply.turn.messages, question)
        self.conversation = replace(self.conversation, messages=messages)

    def fail(self, reason: str) -> None:
        self.result = SampleResult((reason,), "", "", (), "length", self.num_tokens)


def run_suite(
    engine: Engine,
    suite: Suite,
    settings: ProbeSettings | None = None,
    *,
    model: str = "",
    variant: str = "",
    on_progress: Callable[[int, int], None] | None = None,
) -> SuiteResult:
    """Ask every probe and judge the answers.

    model: its name in the results. variant: a key of VARIANTS; "" asks the suite as it is written. on_progress: called
    with (samples judged, all samples). Errors: DataError where the suite's documents cannot be read; ConfigError for a
    tool that is not known, and where a check needs a judge and none is set; of a judge as of `JudgeModel.ratings`.
    """
    with _with_documents(engine, suite.documents) as searching:
        return _run(
            searching, varied(suite, VARIANTS[variant]) if variant else suite, settings, model, variant, on_progress
        )


@contextmanager
def _with_documents(engine: Engine, documents: Path | None) -> Iterator[Engine]:
    """The engine with web_search over a suite's documents; as it is where the suite has none."""
    if documents is None:
        yield engine
        return
    from gradus.data.drops import DropLog
    from gradus.data.titled_texts import titled_texts
    from gradus.tools.search_index import SearchIndex, build_index
    from gradus.tools.web_search import search_in, search_toolbox

    with TemporaryDirectory(prefix="gradus-suite-") as folder:
        file = Path(folder) / "documents.index"
        facts = build_index(file, titled_texts(str(documents), documents.parent, DropLog()))
        if not facts.passages:
            raise DataError(f"{documents}: no document of the suite has text")
        with closing(SearchIndex(file)) as index:
            yield Engine(
                engine.decoder,
                engine.tokenizer,
                engine.form,
                search_toolbox(search_in(index)),
                engine.max_batch,
                engine.cache_bytes,
            )


def _run(
    engine: Engine,
    suite: Suite,
    settings: ProbeSettings | None,
    model: str,
    variant: str,
    on_progress: Callable[[int, int], None] | None,
) -> SuiteResult:
    settings = settings or ProbeSettings()
    check_judge(suite, settings.judge)
    begin = time.perf_counter()
    dialogues = [
        _Dialogue(probe, sample, settings) for probe in suite.probes for sample in range(_num_samples(probe, settings))
    ]
    judged = 0

    def progress() -> None:
        nonlocal judged
        judged += 1
        if on_progress is not None:
            on_progress(judged, len(dialogues))

    open_dialogues = dialogues
    while open_dialogues:
        asked: list[_Dialogue] = []
        requests: list[Request] = []
        for dialogue in open_dialogues:
            request = dialogue.request()
            if dialogue.conversation.messages != dialogue.probe.first_prompt().messages:
                try:
                    engine.check(request)
                except PromptTooLongError as error:
                    dialogue.fail(f"context: {error}")
                    progress()
                    continue
            asked.append(dialogue)
            requests.append(request)

        def take(index: int, reply: Reply, asked: Sequence[_Dialogue] = asked) -> None:
            asked[index].take(reply)
            if asked[index].result is not None:
                progress()

        engine.generate(requests, take)
        open_dialogues = [dialogue for dialogue in asked if dialogue.result is None]
    if settings.judge is not None:
        _ask_judge(settings.judge, dialogues)
    return SuiteResult(
        suite=suite.name,
        model=model,
        items=_items(suite, dialogues),
        seconds=time.perf_counter() - begin,
        num_tokens=sum(dialogue.num_tokens for dialogue in dialogues),
        decoding=settings.sampling.model_dump() | {"max_tokens": settings.max_tokens, "constrain": settings.constrain},
        variant=variant,
    )


def _ask_judge(judge: JudgeModel, dialogues: Sequence[_Dialogue]) -> None:
    """Have the answers rated whose probes ask for it, all at once; a rating below its threshold is a reason."""
    asked = [
        (dialogue, check, check_prompt(check, *dialogue.to_judge))
        for dialogue in dialogues
        if dialogue.to_judge is not None
        for check in dialogue.probe.judgements
    ]
    ratings = judge.ratings([prompt for *_, prompt in asked], of_last=True)
    for (dialogue, check, _), rating in zip(asked, ratings, strict=True):
        assert dialogue.result is not None
        fault = check_fault(check, rating)
        told = {"rubric": check.rubric, "rating": rating.value, "judgement": rating.text}
        dialogue.result = replace(
            dialogue.result,
            reasons=dialogue.result.reasons + ((fault,) if fault else ()),
            ratings=(*dialogue.result.ratings, told),
        )


def _num_samples(probe: Probe, settings: ProbeSettings) -> int:
    if settings.sampling.temperature == 0:
        return 1
    return settings.samples or probe.samples


def _items(suite: Suite, dialogues: Sequence[_Dialogue]) -> tuple[ItemResult, ...]:
    """Samples gathered by probe, in the suite's order."""
    samples: dict[str, list[SampleResult]] = {}
    for dialogue in dialogues:
        assert dialogue.result is not None
        samples.setdefault(dialogue.probe.id, []).append(dialogue.result)
    return tuple(ItemResult(p.id, p.category, tuple(samples[p.id])) for p in suite.probes)


def _judged(probe: Probe, turn: AssistantTurn, num_tokens: int) -> SampleResult:
    results = {m.tool_call_id: m.content for m in turn.messages if m.role == "tool"}
    return SampleResult(
        reasons=tuple(run_checks(probe.own_checks, turn)),
        answer=turn.answer,
        thinking=turn.thinking,
        calls=tuple(
            {"name": call.name, "arguments": call.arguments, "result": results.get(call.id)} for call in turn.calls
        ),
        finish_reason=turn.finish_reason,
        num_tokens=num_tokens,
        loop=next((str(loop) for text in (turn.answer, turn.thinking) for loop in find_loops(text)), ""),
    )
