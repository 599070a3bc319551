"""What the command makes of files and folders that cannot be used, and of terminals without our characters."""

import errno
import io
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from gradus.cli.keyboard import history_file
from gradus.cli.main import app, main
from gradus.cli.sections import SECTIONS
from gradus.core.errors import ConfigError
from gradus.data.hub import cache_folder

ROADMAP = """\
[[stage]]
name = "prose"
kind = "corpus"
sources = [{ kind = "files", path = "text.txt", split = "line" }]
validation_fraction = 0.1
"""


@pytest.fixture
def gradus(tmp_path, monkeypatch, capsys):
    """Run the command in this process, in a folder with a roadmap; gives its exit code and what it said of errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GRADUS_HOME", raising=False)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    (tmp_path / "é.toml").write_text(ROADMAP)
    (tmp_path / "text.txt").write_text("\n".join(f"Line {i} of the text." for i in range(200)))

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["gradus", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, capsys.readouterr().err

    return call


def test_files_and_folders_that_cannot_be_used_are_told_with_the_fix(gradus, tmp_path):
    stands = "a file stands where a folder is needed; choose another place, or move it away\n"
    assert gradus("run", "é.toml", "--home", "text.txt") == (
        1, f"error: text.txt/runs/é: not a directory; {stands}"
    )  # fmt: skip
    assert gradus("run", "é.toml")[0] == 0
    assert gradus("report", "é", "--out", "text.txt/report.html") == (
        1, "error: text.txt: file exists; something else stands where a folder or file is to be made; choose another "
        "place, or move it away\n",
    )  # fmt: skip
    (tmp_path / "taken").mkdir()
    assert gradus("report", "é", "--out", "taken") == (
        1, "error: taken: is a directory; a folder stands where a file is needed; choose another name, or move it "
        "away\n",
    )  # fmt: skip
    assert list(tmp_path.glob(".*")) == []  # nothing half-written stays


def test_a_full_place_and_a_closed_stream_for_the_output_are_no_bugs_of_ours(gradus, monkeypatch):
    # Both were internal errors.
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sys, "stdout", Full())
    assert gradus("plan", "é.toml") == (
        1, "error: no space is left for what is written, the output or a file; free some space and retry\n",
    )  # fmt: skip
    for stream in ("stdin", "stdout"):
        monkeypatch.setattr(sys, stream, None)
    assert gradus("plan", "é.toml") == (0, "")
    sys.stdin.close()
    sys.stdout.close()


def test_the_debug_option_shows_where_a_file_was_missed(gradus, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["gradus", "--debug", "run", "é.toml", "--home", "text.txt"])
    with pytest.raises(NotADirectoryError):
        main()


@pytest.mark.parametrize(("is_terminal", "shown"), [(True, b"? (?.toml)"), (False, rb"\xe9 (\xe9.toml)")])
def test_a_terminal_without_our_characters_gets_others_and_a_file_their_numbers(
    gradus, monkeypatch, is_terminal, shown
):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    stream.isatty = lambda: is_terminal
    monkeypatch.setattr(sys, "stdout", stream)
    assert gradus("run", "é.toml") == (0, "")
    stream.flush()
    assert shown in stream.buffer.getvalue()


def test_every_command_stands_in_the_help_with_its_whole_sentence():
    text = CliRunner(env={"NO_COLOR": "1"}).invoke(app, ["--help"], prog_name="gradus").output
    assert "..." not in text.split("Make a model:")[1]
    listed = re.findall(r"^  ([a-z]+)  +[A-Z]", text, flags=re.MULTILINE)
    assert listed == [name for names in SECTIONS.values() for name in names]
    assert sorted(listed) == sorted(get_command(app).commands)


def test_models_are_named_alike_by_every_command():
    def options(command, path):
        for name, below in getattr(command, "commands", {}).items():
            yield from options(below, (*path, name))
        yield from ((path, option) for option in command.params if option.name == "model" and option.opts != ["model"])

    found = dict(options(get_command(app), ()))
    assert ("chat",) in found
    assert len(found) >= 5
    for option in found.values():
        assert {"--model", "-m"} <= set(option.opts)
        assert option.help


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_an_old_python_is_refused_before_anything_is_installed(tmp_path):
    top = Path(__file__).parents[2]
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text((top / name).read_text())
    old = tmp_path / "python3.9"
    old.write_text(f"#!{sys.executable}\nimport sys\nsys.version_info = (3, 9, 1)\nexec(sys.argv[2])\n")
    old.chmod(0o755)
    done = subprocess.run(["make", "quickstart", f"PYTHON={old}"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert done.stderr.startswith(f"gradus needs Python 3.11 or newer, and {old} is 3.9; install one and name it: make")
    assert not (tmp_path / ".venv").exists()


def test_a_chat_without_a_model_says_which_there_are(gradus, tmp_path):
    which = "error: say which model: gradus chat --model NAME; "
    assert gradus("chat") == (2, f"{which}none was made here yet: gradus run FILE makes one\n")
    for name in ("tiny", "other"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "roadmap.json").write_text("{}")
    assert gradus("chat", "hello") == (2, f"{which}there are other, tiny\n")
    assert gradus("chat", "tiny/base@20", "hello") == (2, f"{which}did you mean gradus chat --model tiny/base@20?\n")
    said = "error: --url needs --model NAME, a name that the service knows\n"
    assert gradus("chat", "--url", "http://localhost:1/v1", "hello") == (2, said)


def test_a_port_that_is_taken_is_told_without_numbers_of_the_system(tmp_path):
    from gradus.serve.keys import Accounts
    from gradus.serve.server import bind

    accounts = Accounts(tmp_path / "keys.json")
    with bind("127.0.0.1", 0, accounts) as first:
        port = first.getsockname()[1]
        with pytest.raises(ConfigError) as refused:
            bind("127.0.0.1", port, accounts)
    assert str(refused.value) == (
        f"cannot listen at 127.0.0.1 port {port}: another program listens there, maybe a server of gradus; choose "
        "another with --port"
    )


def test_a_user_without_a_home_folder_works_and_is_told_where_one_is_needed(gradus, monkeypatch):
    def unknown(number):
        raise KeyError(number)

    for name in ("HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "GRADUS_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)  # as in a container that runs by a number alone
    assert history_file() is None
    assert gradus("run", "é.toml") == (0, "")
    with pytest.raises(ConfigError, match="no home folder to keep caches in; set HOME or GRADUS_CACHE to a folder"):
        cache_folder()
    said = "error: ~ means no folder, since this user has none; set HOME, or write the path out\n"
    assert gradus("run", "é.toml", "--home", "~/models") == (2, said)
