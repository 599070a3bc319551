"""Log-likelihoods of continuations: against one plain pass for each sequence, whatever is shared or batched."""

import random

import pytest
import torch

from gradus.eval.likelihood import Continuation, Likelihood, likelihoods
from gradus.model.batch import Documents
from gradus.model.config import model_config
from gradus.model.transformer import Transformer, build_model

pytestmark = pytest.mark.usefixtures("one_thread")

# Layers that begin at zero would say nothing about attention.
TABLE = {"depth": 2, "width": 32, "num_heads": 4, "num_kv_heads": 2, "head_dim": 8, "init": "xavier"}
VOCABULARY = 50


def small_model(context: int = 64, **settings: object) -> Transformer:
    table = TABLE | settings
    return build_model(model_config(table, VOCABULARY, context), torch.Generator().manual_seed(1))


def one_by_one(model: Transformer, question: list[Continuation]) -> list[Likelihood]:
    """The slow reference: the whole sequence through the model, all logits."""
    found = []
    for one in question:
        whole = [*one.context, *one.tokens][-(model.config.context + 1) :]
        count = min(len(one.tokens), len(whole) - 1)
        hidden = model(torch.tensor(whole[:-1]), Documents.of_lengths([len(whole) - 1]))
        logp = torch.log_softmax(model.head(hidden), -1)[-count:]
        told = torch.tensor(whole[-count:])
        total = logp.gather(1, told[:, None]).sum()
        found.append(Likelihood(float(total), bool((logp.argmax(-1) == told).all()), count))
    return found


def assert_same(model: Transformer, questions: list[list[Continuation]], **options: int) -> None:
    answers = dict(likelihoods(model, questions, **options))
    assert sorted(answers) == list(range(len(questions)))
    with torch.no_grad():
        for number, question in enumerate(questions):
            for got, wanted in zip(answers[number], one_by_one(model, question), strict=True):
                assert got.logp == pytest.approx(wanted.logp, abs=2e-5)
                assert (got.is_greedy, got.num_tokens) == (wanted.is_greedy, wanted.num_tokens)


def random_questions(count: int, seed: int) -> list[list[Continuation]]:
    draw = random.Random(seed)

    def tokens(least: int, most: int) -> list[int]:
        return [draw.randrange(VOCABULARY) for _ in range(draw.randint(least, most))]

    questions = []
    for _ in range(count):
        context = tokens(1, 40)
        questions.append([Continuation(context, tokens(1, 12)) for _ in range(draw.randint(1, 5))])
    return questions


@pytest.mark.parametrize("budget", [1, 100, 4096])
def test_shared_contexts_change_nothing(budget: int) -> None:
    assert_same(small_model(), random_questions(25, seed=budget), tokens_per_batch=budget)


def test_one_beginning_of_many_questions_changes_nothing() -> None:
    examples = [random.Random(3).randrange(VOCABULARY) for _ in range(40)]
    questions = [
        [Continuation([*examples, *one.context[:15]], one.tokens) for one in question]
        for question in random_questions(20, seed=5)
    ]
    # Some are told inside what others share.
    questions += [[Continuation(examples[:20], examples[20:36])], [Continuation(examples[:1], examples[1:])]] * 5
    assert_same(small_model(), questions)


def test_contexts_that_differ_and_choices_that_repeat() -> None:
    questions = [
        [Continuation([1, 2, 3], [9, 9]), Continuation([4, 2, 3], [9, 9])],
        [Continuation([1, 2, 3], [9, 9]), Continuation([1, 2, 3], [9, 9])],
        [Continuation([1, 2, 3], [4]), Continuation([1, 2, 3], [5]), Continuation([1, 2, 3], [4, 5])],
        [Continuation([7], [8])],
    ]
    assert_same(small_model(), questions)


def test_what_is_longer_than_the_context_loses_its_beginning() -> None:
    long = [[Continuation(one.context, one.tokens) for one in question] for question in random_questions(12, seed=7)]
    long.append([Continuation([1, 2], list(range(3, 40)))])
    assert_same(small_model(context=16), long)


def test_a_model_that_looks_back_by_place_reads_sequences_apart() -> None:
    model = small_model(family="custom", window_pattern="SL", window=8, smear=True)
    assert not model.config.attends_to_all_alone
    assert_same(model, random_questions(12, seed=2), tokens_per_batch=300)


def test_choices_are_read_in_one_pass_with_their_context_once() -> None:
    model = small_model()
    read: list[int] = []
    decode = model.decode
    model.decode = lambda tokens, *rest: (read.append(len(tokens)), decode(tokens, *rest))[1]  # type: ignore
    context = list(range(20))
    letters = [Continuation(context, [30 + k]) for k in range(4)]
    endings = [Continuation(context, [30 + k, 1, 2]) for k in range(4)]
    list(likelihoods(model, [letters, endings]))
    # The letters need the context alone; the endings all but their last token.
    assert read == [20 + (20 + 4 * 2)]
