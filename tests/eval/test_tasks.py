"""Tasks scored by log-likelihood: wording, verdicts, resuming, sharing, and what is said of mistakes."""

import json
import math
import random
import re
from pathlib import Path

import pytest

from gradus.cli.evaluating import task_text
from gradus.core.comparison import compare_measures, named_measures
from gradus.core.errors import ConfigError, DataError
from gradus.core.gate import Gate, find_measure, judge
from gradus.core.statistics import wilson
from gradus.engine.engine import Engine
from gradus.eval import task_items, task_run
from gradus.eval.asked import Asked, Continuation, Likelihood
from gradus.eval.benchmarks import BenchmarkSettings, asked_of, files_of
from gradus.eval.journal import Journal
from gradus.eval.likelihood import likelihoods
from gradus.eval.perplexity import document_windows, perplexity_measures
from gradus.eval.task_result import TaskResult
from gradus.eval.task_run import answers_of, gathered, run_tasks
from gradus.eval.tasks import Subset, asked, evenly_spread, evenly_spread_over
from gradus.train.parallel import World

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A benchmarks folder with a few small sets."""
    draw = random.Random(1)
    words = ["the", "cat", "sat", "on", "a", "mat", "and", "he", "was", "not", "all", "but", "had"]

    def text(count: int) -> str:
        return " ".join(draw.choice(words) for _ in range(count))

    rows = [
        {"id": f"q{n}", "question": text(8), "choices": [text(3), text(1), text(5)], "gold": n % 3} for n in range(20)
    ]
    passages = [{"context": text(9), "continuation": "cat"} for _ in range(9)]
    for name, found in {"arc/arc_easy_test": rows, "lambada/lambada_openai": passages}.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    (tmp_path / "wikitext2").mkdir()
    pages = [f" \n = Page {n} = \n \n {text(30)} @-@ {text(700)} . \n" for n in range(3)]
    (tmp_path / "wikitext2/test.txt").write_text("".join(pages))
    return tmp_path


def test_wordings_are_those_of_the_harness() -> None:
    row = {"sentence": "Ann saw Eve so _ fled.", "option1": "Ann", "option2": "Eve", "answer": "2"}
    one = task_items.winogrande(row)
    assert one.pairs == (("Ann saw Eve so Ann", " fled."), ("Ann saw Eve so Eve", " fled."))
    assert one.gold == 1
    asked = {"query": "Passage: It rained.\nQuestion: did it rain?\n", "choices": ["no", "yes"], "gold": 1}
    assert task_items.boolq(asked).pairs[1] == ("It rained.\nQuestion: did it rain?\nAnswer:", " yes")
    one = task_items.mmlu({"cells": [" Which? ", "a", "b", "c", "d", "C"]})
    assert one.pairs[2] == ("Which?\nA. a\nB. b\nC. c\nD. d\nAnswer:", " C")
    assert (one.gold, one.choices) == (2, ("A", "B", "C", "D"))
    listed = {"query": "Question: Who?\nChoices:\nA. he\nB. she\nAnswer:", "choices": ["A", "B"], "gold": 0}
    assert task_items.commonsense_qa(listed).pairs[0] == ("Question: Who?\nA. he\nB. she\nAnswer:", " A")
    cooking = {"query": "How to cook [title] Boil  it. [step] Then", "choices": ["eat."], "gold": 0}
    assert task_items.hellaswag(cooking).pairs[0] == ("How to cook. Boil it. Then", " eat.")
    assert task_items.mmlu_subject("us_foreign_policy_test:12") == "us_foreign_policy"
    assert task_items.wikitext_text("a @-@ b , c ( d ) \n = = E = = \n") == "a-b, c (d)\n== E ==\n"


def verdicts(item: Asked, *logp: float) -> dict[str, dict[str, int]]:
    answers = tuple(Likelihood(value, False, 1) for value in logp)
    return TaskResult("t", "m", ("acc", "acc_norm"), (item,), (answers,), "").verdicts()


def test_the_highest_wins_as_it_is_and_by_the_character_and_the_first_of_equals() -> None:
    one = Continuation([1], [2])
    item = Asked("x", "", ("yes", "certainly"), (one, one), (3, 9), gold=1)
    assert verdicts(item, -3.0, -6.0) == {"acc": {"x": 0}, "acc_norm": {"x": 1}}
    assert verdicts(item, -3.0, -9.0) == {"acc": {"x": 0}, "acc_norm": {"x": 0}}
    assert verdicts(item, -3.0, -2.0) == {"acc": {"x": 1}, "acc_norm": {"x": 1}}


def test_an_empty_choice_is_never_taken_by_the_character() -> None:
    one = Continuation([1], [2])
    assert verdicts(Asked("x", "", ("", "certainly"), (one, one), (0, 9), 1), -1.0, -900.0)["acc_norm"] == {"x": 1}


def test_a_model_that_has_diverged_has_a_perplexity() -> None:
    item = Asked("x", "", ("a",), (Continuation([1], [2]),), (1,), 0)
    answers = ((Likelihood(-2000.0, False, 1),), (Likelihood(-9000.0, False, 1),))
    found = [
        TaskResult("t", "m", ("perplexity",), (item, item), answers, "").measures()["perplexity"],
        perplexity_measures([Asked(str(n), "", (), (), (1, 4), 0) for n in range(2)], answers)["word_perplexity"],
    ]
    for measure in found:
        assert measure["value"] > 1e300
        assert all(math.isfinite(measure[key]) for key in ("value", "lower", "upper", "standard_error"))


def test_a_context_is_cut_where_it_ends_and_its_last_spaces_belong_to_what_follows(engine: Engine) -> None:
    item = task_items.TextItem((("the cat ", " sat"), ("", "sat")), (" sat", "sat"))
    (found,) = asked([("x", item)], engine.tokenizer)
    end = engine.tokenizer.special("<|endoftext|>")
    assert engine.tokenizer.decode(found.question[0].context) == "the cat"
    assert engine.tokenizer.decode(found.question[0].tokens) == "  sat"
    assert list(found.question[1].context) == [end]
    (begun,) = asked([("x", item)], engine.tokenizer, bos=True)
    assert list(begun.question[0].context) == [end, *found.question[0].context]
    assert begun.question[1] == found.question[1]


def test_a_limit_takes_items_from_everywhere() -> None:
    assert evenly_spread(10, None) == list(range(10))
    assert evenly_spread(10, 4) == [0, 2, 5, 7]
    assert evenly_spread(3, 9) == [0, 1, 2]
    drawn = [evenly_spread(1000, Subset(10, seed)) for seed in range(20)]
    assert all([number // 100 for number in one] == list(range(10)) for one in drawn)  # one of every stretch
    assert len({tuple(one) for one in drawn}) == 20
    assert drawn[3] == evenly_spread(1000, Subset(10, 3))
    assert evenly_spread(3, Subset(9, 1)) == [0, 1, 2]
    # Every second one would be of one group alone, and the first half of neither of the last.
    turns = list("abababababab") + list("ccdd")
    assert [turns[n] for n in evenly_spread_over(turns, 8)] == list("abababcd")
    assert evenly_spread_over(turns, None) == evenly_spread_over(turns, 99) == list(range(16))


def test_windows_tell_every_token_once() -> None:
    tokens = list(range(100, 111))
    windows = document_windows(tokens, 1, 4)
    assert [token for window in windows for token in window.tokens] == tokens
    assert [list(window.context) for window in windows] == [[1], [103], [106, 107]]
    assert [len(window.context) + len(window.tokens) - 1 for window in windows] == [4, 4, 4]


def test_perplexities_are_over_all_documents() -> None:
    one = Continuation([1], [2])
    items = [Asked(str(n), "", (), (one,), (words, 4 * words), 0, is_document=True) for n, words in enumerate((2, 6))]
    found = perplexity_measures(items, [[Likelihood(-8.0, False, 3)], [Likelihood(-16.0, False, 9)]])
    assert found["word_perplexity"]["value"] == pytest.approx(math.exp(24 / 8))
    assert found["bits_per_byte"]["value"] == pytest.approx(24 / 32 / math.log(2))
    assert found["token_perplexity"]["value"] == pytest.approx(math.exp(24 / 12))
    # Residuals of words: 8 - 3 x 2 and 16 - 3 x 6.
    assert found["word_perplexity"]["standard_error"] == pytest.approx(math.exp(3) * math.sqrt(8 * 2) / 8)


def test_measures_can_be_named_by_gates(engine: Engine, folder: Path) -> None:
    tasks = ["arc_easy", "lambada_openai", "wikitext2"]
    found = dict(run_tasks(engine, tasks, BenchmarkSettings(folder)))
    measures = {"tasks": gathered(found)}
    assert list(named_measures(measures)) == [
        "tasks.arc_easy.acc", "tasks.arc_easy.acc_norm", "tasks.lambada_openai.acc", "tasks.lambada_openai.perplexity",
        "tasks.wikitext2.word_perplexity", "tasks.wikitext2.byte_perplexity", "tasks.wikitext2.token_perplexity",
        "tasks.wikitext2.bits_per_byte",
    ]  # fmt: skip
    acc = find_measure(measures, "tasks.arc_easy.acc")
    assert set(acc["items"]) == {f"q{n}" for n in range(20)}
    assert acc["lower"] < acc["value"] < acc["upper"]
    entry = found["arc_easy"].to_json()["items"][0]
    assert set(entry) == {"id", "context", "choices", "gold", "logp", "tokens", "acc", "acc_norm"}


def test_what_was_scored_before_an_interruption_is_not_scored_again(
    engine: Engine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ((_, _, items),) = asked_of("arc_easy", engine.form, BenchmarkSettings(folder), 512)
    whole = answers_of(engine.model, items, tokens_per_batch=64)
    plain = task_run.likelihoods
    read: list[int] = []

    def stopping(*arguments, **options):  # type: ignore[no-untyped-def]
        for number, found in plain(*arguments, **options):
            if len(read) == 17:
                raise KeyboardInterrupt
            read.append(number)
            yield number, found

    monkeypatch.setattr(task_run, "likelihoods", stopping)
    journal = folder / "journal"
    with pytest.raises(KeyboardInterrupt):
        answers_of(engine.model, items, journal=Journal(journal, "one"), tokens_per_batch=64)
    file = journal / "0.jsonl"
    file.write_text(file.read_text() + "[99, [[1.0, tr")  # a line torn by a kill
    kept = set(Journal(journal, "one").read())
    assert kept == set(read[:16])
    read.clear()
    # The same batches are read as without an interruption, so that nothing differs; the one that was cut off, again.
    assert answers_of(engine.model, items, journal=Journal(journal, "one"), tokens_per_batch=64) == whole
    assert len(items) - 16 <= len(read) < len(items)
    # Of another model nothing is taken.
    assert Journal(journal, "two").read() == {}


def test_processes_share_the_items_to_the_last_bit(engine: Engine, folder: Path) -> None:
    ((_, _, items),) = asked_of("arc_easy", engine.form, BenchmarkSettings(folder), 512)
    questions = [item.question for item in items]
    whole = dict(likelihoods(engine.model, questions, tokens_per_batch=64))
    shares = [
        dict(likelihoods(engine.model, questions, tokens_per_batch=64, world=World(rank, 3))) for rank in range(3)
    ]
    assert sum(map(len, shares)) == len(items)
    assert all(4 < len(share) < 10 for share in shares)
    assert shares[0] | shares[1] | shares[2] == whole
    alone = likelihoods(engine.model, questions[:1], world=World(2, 3))
    assert list(alone) == []


def test_mistakes_name_the_task_and_the_file(engine: Engine, folder: Path) -> None:
    with pytest.raises(ConfigError, match='unknown task "helaswag"; did you mean "hellaswag"'):
        list(run_tasks(engine, ["helaswag"], BenchmarkSettings(folder)))
    with pytest.raises(DataError, match=r"no file piqa/valid\.jsonl \(or \.gz\)"):
        files_of("piqa", BenchmarkSettings(folder))
    with pytest.raises(DataError, match="no benchmarks folder is set; set GRADUS_BENCHMARKS"):
        files_of("piqa", BenchmarkSettings())
    with pytest.raises(DataError, match="CORE: no bundle is set"):
        files_of("core", BenchmarkSettings())
    for name, file in {"lambada_openai": "lambada/lambada_openai.jsonl", "wikitext2": "wikitext2/test.txt"}.items():
        (folder / file).write_text("")
        with pytest.raises(DataError, match=f'task "{name}": no item in its files'):
            list(run_tasks(engine, [name], BenchmarkSettings(folder)))
    (folder / "arc/arc_easy_test.jsonl").write_text('{"id": "a", "question": "?", "choices": ["x"], "gold": 4}\n')
    with pytest.raises(DataError, match=r"arc_easy_test\.jsonl:1: not a row of \"arc_easy\" .*answer 4 of 1 choices"):
        list(run_tasks(engine, ["arc_easy"], BenchmarkSettings(folder)))


def test_of_a_single_document_or_passage_no_certainty_is_claimed() -> None:
    def answers(count: int) -> list[tuple[Likelihood, ...]]:
        return [(Likelihood(-4.0 - n, n > 1, 3),) for n in range(count)]

    def items(count: int, cluster: str = "") -> list[Asked]:
        one = Continuation([1], [2])
        return [Asked(str(n), "", ("x",), (one,), (2, 9), 0, cluster=cluster) for n in range(count)]

    assert {"lower", "upper", "standard_error"} <= perplexity_measures(items(2), answers(2))["bits_per_byte"].keys()
    lonely = TaskResult(
        "t", "m", ("perplexity", "document_perplexity"), tuple(items(1)), tuple(answers(1)), ""
    ).measures()
    for measure in lonely.values():
        assert not {"lower", "upper", "standard_error"} & measure.keys()
    assert re.search(r"bits_per_byte +9 +0\.641\d +none", task_text("m", lonely, {}))
    gate = Gate(measure="bits_per_byte", bound="upper", at_most=1.0)
    with pytest.raises(ConfigError, match="has no interval: of a single document or item none is known"):
        judge(gate, lonely)
    (compared,) = compare_measures({"b": lonely["bits_per_byte"]}, {"b": lonely["perplexity"]})
    assert (compared.verdict, compared.resolvable) == ("not resolved", None)
    # Four items on one passage are one: their share may be anything.
    acc = TaskResult("t", "m", ("acc_greedy",), tuple(items(4, "p")), tuple(answers(4)), "").measures()["acc"]
    assert (acc["value"], acc["successes"], acc["clusters"]) == (0.5, 2, 1)
    assert (acc["lower"], acc["upper"]) == wilson(0.5, 1)
