"""Running a probe suite: every question through the engine at once, every answer judged by its checks.

Only the answer is read, by the checks of the probe file. A conversation that outgrows the context through
the model's own earlier answers fails its probe; anything else that goes wrong is an error of ours or of the
suite and is raised.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from gradus.conversation.artifacts import find_loops
from gradus.conversation.checks import AssistantTurn, Calls, Citation, run_checks
from gradus.conversation.constraint import Constraint
from gradus.conversation.messages import Conversation, Message, messages_from_json
from gradus.conversation.probes import Probe, Suite
from gradus.core.errors import ConfigError, DataError
from gradus.core.fingerprint import digest
from gradus.engine.engine import Engine
from gradus.engine.sampling import GREEDY, Sampling
from gradus.engine.turn import PromptTooLongError, Reply, Request
from gradus.eval.journal import Journal, SharedWork
from gradus.eval.judging import JudgeModel, Rating, check_fault, check_judge, check_prompt
from gradus.eval.result import ItemResult, SampleResult, SuiteResult
from gradus.train.parallel import World


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

    def __init__(self, suite: str, probe: Probe, sample: int, settings: ProbeSettings) -> None:
        self.suite = suite
        self.probe = probe
        self.sample = sample
        self.settings = settings
        self.tools = probe.tools if probe.tools is not None else settings.tools or ()
        self.conversation: Conversation = probe.first_prompt()
        self.later = list(probe.later_turns)
        self.num_tokens = 0
        self.result: SampleResult | None = None
        self.to_judge: list[tuple[Message, ...]] = []  # what the judge is shown, by its checks

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
            try:
                self.result = _judged(self.probe, reply.turn, self.num_tokens)
            except DataError as error:
                raise DataError(f'suite "{self.suite}", probe "{self.probe.id}": {error}') from None
            asked, answer = self.conversation.messages, reply.turn.answer
            self.to_judge = [check_prompt(check, asked, answer) for check in self.probe.judgements]
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
    identity: str = "",
    journals: Path | None = None,
    world: World | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> SuiteResult:
    """Ask every probe and judge the answers.

    model: its name in the results. variant: a key of VARIANTS; "" asks the suite as it is written. identity, journals,
    world: as of `run_tasks`. on_progress: called with (samples judged, all samples). Errors: DataError where the
    suite's documents cannot be read, or a pattern takes too long on an answer; ConfigError with every probe that cannot
    be asked, for a tool that is not known or a prompt that fills the context, and where a check needs a judge and none
    is set; of a judge as of `JudgeModel.ratings`.
    """
    begin = time.perf_counter()
    settings = settings or ProbeSettings()
    check_judge(suite, settings.judge)
    if variant:
        suite = varied(suite, VARIANTS[variant])
    units = [(probe, sample) for probe in suite.probes for sample in range(_num_samples(probe, settings))]
    journal = None if journals is None else Journal(journals, _identity(identity, suite, settings))
    work = SharedWork(len(units), journal, world, on_progress)
    with _with_documents(engine, suite.documents) as searching:
        _refuse_what_cannot_be_asked(searching, suite, settings)
        _ask(searching, {number: _Dialogue(suite.name, *units[number], settings) for number in work.todo}, work)
    answered = work.everything()
    samples = [SampleResult.from_json(found["result"]) for found in answered]
    if settings.judge is not None:
        shown = [[messages_from_json(prompt, "prompt") for prompt in found["shown"]] for found in answered]
        samples = _rated(settings.judge, [probe for probe, _ in units], samples, shown, world)
    by_probe: dict[str, list[SampleResult]] = {}
    for (probe, _), sample in zip(units, samples, strict=True):
        by_probe.setdefault(probe.id, []).append(sample)
    return SuiteResult(
        suite=suite.name,
        model=model,
        items=tuple(ItemResult(probe.id, probe.category, tuple(by_probe[probe.id])) for probe in suite.probes),
        seconds=time.perf_counter() - begin,
        num_tokens=sum(sample.num_tokens for sample in samples),
        decoding=settings.sampling.model_dump() | {"max_tokens": settings.max_tokens, "constrain": settings.constrain},
        variant=variant,
    )


def _identity(model: str, suite: Suite, settings: ProbeSettings) -> str:
    """Of what is asked of which model, and how; judgements are kept elsewhere."""
    probes = [probe.model_dump(mode="json") for probe in suite.probes]
    how = asdict(replace(settings, judge=None, sampling=GREEDY)) | {"sampling": settings.sampling.model_dump()}
    return digest([model, suite.digest, probes, how])


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


def _refuse_what_cannot_be_asked(engine: Engine, suite: Suite, settings: ProbeSettings) -> None:
    """Every probe that this model cannot be asked, by its id, before the first one is. Errors: ConfigError."""
    problems = []
    for probe in suite.probes:
        try:
            engine.check(_Dialogue(suite.name, probe, 0, settings).request())
        except (ConfigError, PromptTooLongError) as error:
            told = error.problems if isinstance(error, ConfigError) else [str(error)]
            problems += [f'suite "{suite.name}", probe "{probe.id}": {text}' for text in told]
    if problems:
        raise ConfigError(problems)


def _ask(engine: Engine, dialogues: dict[int, _Dialogue], work: SharedWork) -> None:
    """Answer dialogues, by their numbers, turn by turn, all at once; each is kept when it ends."""

    def end(number: int, dialogue: _Dialogue) -> None:
        assert dialogue.result is not None
        shown = [[message.to_json() for message in prompt] for prompt in dialogue.to_judge]
        work.keep({number: {"result": asdict(dialogue.result), "shown": shown}})

    while dialogues:
        requests: dict[int, Request] = {}
        for number, dialogue in dialogues.items():
            request = dialogue.request()
            if dialogue.conversation.messages != dialogue.probe.first_prompt().messages:
                try:
                    engine.check(request)
                except PromptTooLongError as error:
                    dialogue.fail(f"context: {error}")
                    end(number, dialogue)
                    continue
            requests[number] = request
        numbers = list(requests)

        def take(
            index: int, reply: Reply, numbers: list[int] = numbers, asked: dict[int, _Dialogue] = dialogues
        ) -> None:
            dialogue = asked[numbers[index]]
            dialogue.take(reply)
            if dialogue.result is not None:
                end(numbers[index], dialogue)

        engine.generate(list(requests.values()), take)
        dialogues = {number: dialogues[number] for number in numbers if dialogues[number].result is None}


def _rated(
    judge: JudgeModel,
    probes: Sequence[Probe],
    samples: Sequence[SampleResult],
    shown: Sequence[Sequence[tuple[Message, ...]]],
    world: World | None,
) -> list[SampleResult]:
    """The samples of these probes, those rated whose probes ask for it: a rating below its threshold is a reason.

    shown: to the judge, by sample.
    """
    prompts = [prompt for of_sample in shown for prompt in of_sample]
    work = SharedWork(len(prompts), world=world)
    ratings = judge.ratings([prompts[number] for number in work.todo], of_last=True)
    work.keep({number: astuple(rating) for number, rating in zip(work.todo, ratings, strict=True)})
    rated = iter(Rating(*found) for found in work.everything())
    found = []
    for probe, sample, of_sample in zip(probes, samples, shown, strict=True):
        # One that outgrew the context has failed already and is not shown.
        for check, rating in zip(probe.judgements[: len(of_sample)], rated, strict=False):
            fault = check_fault(check, rating)
            told = {"rubric": check.rubric, "rating": rating.value, "judgement": rating.text}
            reasons = sample.reasons + ((fault,) if fault else ())
            sample = replace(sample, reasons=reasons, ratings=(*sample.ratings, told))
        found.append(sample)
    return found


def _num_samples(probe: Probe, settings: ProbeSettings) -> int:
    if settings.sampling.temperature == 0:
        return 1
    return settings.samples or probe.samples


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
