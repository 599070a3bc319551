"""`[machine] device = "mps"`: what is refused, and where there is no such GPU."""

import pytest
import torch
from small_stages import PROSE, base_of, tokens_of, write_lines

from gradus.core.errors import ConfigError, GradusError, TrainingError
from gradus.engine.load import load_engine, settled_precision
from gradus.model.batch import Batch, Documents
from gradus.model.mps import LONGEST_SUM
from gradus.roadmap.progress import QuietProgress
from gradus.roadmap.run import walk
from gradus.roadmap.schema import load_roadmap
from gradus.roadmap.training import _ready, _sampled

MACHINE = '[machine]\ndevice = "mps"\n'
no_mac = pytest.mark.skipif(torch.backends.mps.is_available(), reason="this is a Mac with such a GPU")


def test_what_a_mac_cannot_do_is_refused_by_line(tmp_path):
    write_lines(tmp_path, 20)
    file = tmp_path / "refused.toml"
    walk = PROSE + tokens_of(280) + base_of(4, context=64) + 'optimizer = { rest = "adamw8bit" }\n'
    file.write_text(MACHINE + "processes = 2\ncompile = true\n" + walk)
    with pytest.raises(ConfigError) as caught:
        load_roadmap(file)
    found = [line.replace(f"{tmp_path}/", "") for line in caught.value.problems]
    assert found[:2] == [
        'refused.toml:3: device = "mps" is one GPU and one process; found 2, leave it out',
        'refused.toml:4: device = "mps" compiles nothing; leave it out',
    ]
    assert len(found) == 3
    assert '[machine] device = "mps" has no "adamw8bit"; choose "adamw" or "adafactor"' in found[2]


@no_mac
def test_a_walk_without_such_a_gpu_says_so(tmp_path):
    write_lines(tmp_path, 60)
    file = tmp_path / "walk.toml"
    file.write_text(MACHINE + PROSE + tokens_of(280) + base_of(4, context=64))
    with pytest.raises(GradusError, match=r'device = "mps": torch here is built without it.*set device = "cpu"'):
        walk(load_roadmap(file), tmp_path / "home", QuietProgress())


@no_mac
@pytest.mark.parametrize(
    ("name", "told"),
    [("mps", "device mps: torch here is built without it"), ("gpu", 'no device "gpu"; expected cpu, cuda, cuda:1 or')],
)
def test_a_model_is_not_served_by_a_device_that_is_not_there(tmp_path, name, told):
    for ask in (load_engine, lambda folder, device: settled_precision("auto", folder, device)):
        with pytest.raises(ConfigError, match=told):
            ask(tmp_path, device=name)


@pytest.mark.parametrize("made", [_ready, _sampled])
def test_a_micro_batch_that_products_would_be_too_long_for_is_refused(made):
    def batches(step):
        tokens = torch.zeros(step, dtype=torch.int64)
        return [Batch(tokens, tokens, Documents.of_lengths([step]))]

    apple = torch.device("mps")
    assert made(batches, apple, LONGEST_SUM)
    with pytest.raises(TrainingError, match=r"over more than 32,766 tokens, and a micro-batch here has 32,767"):
        made(batches, apple, LONGEST_SUM + 1)
