"""The data room stays free of torch, all but its loader, and its source settings are quick to import."""

import subprocess
import sys

import pytest

CODE = "import sys; import {modules}; sys.exit(any(name in sys.modules for name in {banned}))"


@pytest.mark.parametrize(
    ("modules", "banned"),
    [
        (
            "gradus.data.corpus, gradus.data.shards, gradus.data.pack, gradus.data.order, gradus.data.rows, "
            "gradus.data.pool, gradus.data.mixture",
            ["torch"],
        ),
        ("gradus.data.sources, gradus.data.mixture", ["torch", "pyarrow", "zstandard"]),
    ],
)
def test_these_modules_do_not_pull_in(modules: str, banned: list[str]) -> None:
    command = [sys.executable, "-c", CODE.format(modules=modules, banned=banned)]
    assert subprocess.run(command, check=False).returncode == 0
