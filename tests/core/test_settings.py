"""Settings loading: strict, every problem at once, each with its key and the nearest name."""

from typing import Annotated, Literal

import pytest
from pydantic import Field

from gradus.core.errors import ConfigError, did_you_mean, nearest
from gradus.core.quantity import Quantity
from gradus.core.settings import Settings, check_settings, load_settings


class Files(Settings):
    kind: Literal["files"]
    path: str
    limit: int | None = None


class Made(Settings):
    kind: Literal["synthetic"]
    name: str


class Inner(Settings):
    depth: int = Field(4, ge=1)


class Example(Settings):
    sources: tuple[Annotated[Files | Made, Field(discriminator="kind")], ...] = ()
    epochs: float = 1.0
    mode: Literal["split", "whole"] = "split"
    model: str | Inner = "d4"
    horizon: Quantity = Quantity(20, "tokens/param")
    corpus: str


def texts(data: dict) -> list[str]:
    settings, problems = check_settings(Example, data)
    assert settings is None
    return [p.text for p in problems]


def test_good_settings_load_and_lists_become_tuples():
    loaded = load_settings(
        Example,
        {"corpus": "prose", "epochs": 3, "sources": [{"kind": "files", "path": "x"}], "horizon": "3B tokens"},
    )
    assert loaded.epochs == 3.0
    assert loaded.sources == (Files(kind="files", path="x"),)
    assert loaded.horizon == Quantity(3e9, "tokens")


def test_settings_are_frozen():
    loaded = load_settings(Example, {"corpus": "prose"})
    with pytest.raises(ValueError, match="frozen"):
        loaded.epochs = 2


def test_an_unknown_key_suggests_the_nearest():
    assert texts({"corpus": "p", "epoch": 2}) == ['unknown key "epoch"; did you mean "epochs"?']


def test_every_problem_is_reported_at_once():
    found = texts({"epochs": "six", "mode": "splitt", "sources": [{"kind": "files", "pth": "x"}]})
    assert found == [
        '"sources[0].path": missing key'.replace('"sources[0].path": missing key', 'missing key "sources[0].path"'),
        'unknown key "sources[0].pth"; did you mean "path"?',
        '"epochs": expected a number, found "six"',
        '"mode": expected one of split, whole, found "splitt"; did you mean "split"?',
        'missing key "corpus"',
    ]


def test_text_is_no_number_and_a_number_is_no_text():
    assert texts({"corpus": 3}) == ['"corpus": expected text in quotes, found 3']
    assert texts({"corpus": "p", "epochs": "6"}) == ['"epochs": expected a number, found "6"']
    assert texts({"corpus": "p", "sources": [{"kind": "files", "path": "x", "limit": 2.5}]}) == [
        '"sources[0].limit": expected a whole number, found 2.5'
    ]


def test_entries_that_are_wrong_are_not_missed_as_well():
    class Export(Settings):
        formats: tuple[Literal["gguf", "ollama"], ...] = Field(min_length=1)

    def told(formats):
        return [problem.text for problem in check_settings(Export, {"formats": formats})[1]]

    assert told(["ggfu"]) == ['"formats[0]": expected one of gguf, ollama, found "ggfu"; did you mean "gguf"?']
    assert told([]) == ['"formats": expected at least 1 entries, found a list']


def test_a_wrong_union_tag_names_the_known_ones():
    assert texts({"corpus": "p", "sources": [{"kind": "file", "path": "x"}]}) == [
        '"sources[0].kind": expected one of files, synthetic, found "file"; did you mean "files"?'
    ]


def test_bounds_inside_a_plain_union_point_at_the_key():
    assert '"model.depth": expected at least 1, found 0' in texts({"corpus": "p", "model": {"depth": 0}})
    assert 'unknown key "model.dpth"; did you mean "depth"?' in texts({"corpus": "p", "model": {"dpth": 2}})


def test_a_bad_quantity_names_the_forms():
    (text,) = texts({"corpus": "p", "horizon": "20 tokns"})
    assert text.startswith('"horizon": unknown unit "tokns" in "20 tokns"; did you mean "tokens"?')


def test_the_place_comes_first_in_the_error():
    with pytest.raises(ConfigError) as caught:
        load_settings(Example, {"corpus": "p", "epoch": 2}, lambda path: f"r.toml:{len(path)}")
    assert str(caught.value) == 'r.toml:1: unknown key "epoch"; did you mean "epochs"?'
    assert caught.value.problems == [str(caught.value)]


def test_nearest_finds_slips_and_rejects_strangers():
    assert nearest("epoch", ["epochs", "seed"]) == "epochs"
    assert nearest("vocab", ["vocab_size", "pattern"]) == "vocab_size"
    assert nearest("zzz", ["epochs", "seed"]) is None
    assert did_you_mean("zzz", ["epochs"]) == ""


def test_a_temperature_that_makes_logits_infinite_is_refused_by_every_setting_of_it() -> None:
    from gradus.roadmap.stages import distill_pairs, eval, grpo, pairs
    from gradus.serve.settings import ServeSettings

    for settings, names in (
        (ServeSettings, ["temperature"]),
        (eval.Settings, ["temperature", "task_temperature", "audit_temperature"]),
        (pairs.Settings, ["temperature"]),
        (grpo.Settings, ["temperature"]),
        (distill_pairs.Settings, ["temperature"]),
    ):
        for name in names:
            for value in (1e-50, 1e9, -1.0, float("nan")):
                _, problems = check_settings(settings, {name: value})
                assert any(problem.path == (name,) for problem in problems), (settings, name, value)


def test_infinities_and_what_is_no_number_are_refused_at_any_depth() -> None:
    # They passed, and the fingerprint of the stage could not be written: an internal error.
    class Shares(Settings):
        lr: float = 0.0
        weights: dict[str, float] = Field(default={})
        value: int | float = 0

    for value in (float("inf"), float("nan")):
        for data in ({"lr": value}, {"weights": {"a": value}}):
            settings, problems = check_settings(Shares, data)
            assert settings is None
            assert "expected a finite number" in problems[0].text
        assert check_settings(Shares, {"value": value})[0] is None


def test_half_a_character_is_told_by_its_key() -> None:
    settings, problems = check_settings(Example, {"corpus": "c", "mode": ["a", "b \ud800"]})
    assert settings is None
    assert [p.path for p in problems] == [("mode", 1)]
    assert problems[0].text == '"mode[1]": holds half a character (a lone surrogate), which is no text; write it anew'
