"""Grouping prompts by their common beginnings."""

from hypothesis import given
from hypothesis import strategies as st

from gradus.engine import prefixes
from gradus.engine.prefixes import prefix_groups

LONG = list(range(100, 140))


def test_prompts_that_begin_alike_form_a_group() -> None:
    prompts = [[*LONG, i, i] for i in range(8)]
    others = [[7, i] for i in range(3)]
    assert prefix_groups([*others, *prompts]) == [(40, list(range(3, 11))), (0, [0, 1, 2])]


def test_few_or_short_beginnings_are_not_shared() -> None:
    assert prefix_groups([[*LONG, i] for i in range(7)]) == [(0, list(range(7)))]
    assert prefix_groups([[*LONG[:31], i] for i in range(9)]) == [(0, list(range(9)))]


def test_equal_prompts_keep_their_last_token_for_themselves() -> None:
    assert prefix_groups([LONG] * 8) == [(39, list(range(8)))]
    assert prefix_groups([LONG, *[[*LONG, i] for i in range(8)]]) == [(39, list(range(9)))]


def test_no_prompts_make_no_groups() -> None:
    assert prefix_groups([]) == []


@given(st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=6), max_size=30))
def test_every_prompt_is_in_one_group_that_shares_what_it_says(prompts: list[list[int]]) -> None:
    least = prefixes.MIN_SHARED_TOKENS, prefixes.MIN_SHARED_PROMPTS
    prefixes.MIN_SHARED_TOKENS, prefixes.MIN_SHARED_PROMPTS = 2, 3
    groups = prefix_groups(prompts)
    prefixes.MIN_SHARED_TOKENS, prefixes.MIN_SHARED_PROMPTS = least
    assert sorted(index for _, members in groups for index in members) == list(range(len(prompts)))
    for length, members in groups:
        assert len({tuple(prompts[index][:length]) for index in members}) == 1
        assert all(len(prompts[index]) > length for index in members)
