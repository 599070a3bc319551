"""What tests of imported models share: a tokenizer that is not ours, and a roadmap that takes a folder."""

from pathlib import Path

from gradus.roadmap.progress import QuietProgress
from gradus.roadmap.run import walk
from gradus.roadmap.schema import load_roadmap

STAGE = '[[stage]]\nname = "taken"\nkind = "import"\ntake = "folder:theirs"\n'


def save_tokenizer(path):
    """A byte-level BPE of 300 ids without control tokens, by the tokenizers library."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator([Path(__file__).with_name("test_import_model.py").read_text()], trainer)
    assert made.get_vocab_size() == 300
    made.save(str(path))


def walked(tmp_path, text, home="home"):
    """The artifacts of a roadmap in a folder."""
    file = tmp_path / "road.toml"
    file.write_text(text)
    return walk(load_roadmap(file), tmp_path / home, QuietProgress()).artifacts
