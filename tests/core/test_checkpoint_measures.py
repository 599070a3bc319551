"""What checkpoints were measured at: the lowest, the later of equal ones, and notes that are none."""

import json

import pytest

from gradus.core.checkpoint_measures import best_step, noted_measures
from gradus.core.errors import ArtifactError


def test_the_lowest_of_the_steps_that_count_is_best_and_of_equal_ones_the_later(tmp_path):
    assert best_step(tmp_path, {100}) is None
    (tmp_path / "measures.json").write_text(json.dumps({"100": 1.5, "200": 1.0, "300": 1.5, "400": 0.5}))
    assert noted_measures(tmp_path) == {100: 1.5, 200: 1.0, 300: 1.5, 400: 0.5}
    assert best_step(tmp_path, {100, 200, 300}) == 200
    assert best_step(tmp_path, {100, 300}) == 300
    assert best_step(tmp_path, {500}) is None


@pytest.mark.parametrize("text", ['{"x": 1}', '{"100": null}', "[1]", "{", '{"100": "low"}'])
def test_notes_that_training_does_not_write_are_told_by_their_file(tmp_path, text):
    (tmp_path / "measures.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"measures\.json: not what training notes there .*; delete it"):
        best_step(tmp_path, {100})
