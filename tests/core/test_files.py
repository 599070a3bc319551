"""Files and folders that cannot be used, as messages."""

import errno
import os

import pytest

from gradus.core.files import place_error, write_atomic


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.EACCES, "/a/b: permission denied; give this user the right to it, or choose another place"),
        (errno.EROFS, "/a/b: read-only file system; choose another place"),
        (errno.ENOENT, "/a/b: no such file or directory; check the name, and that its folder is there"),
        (errno.ENAMETOOLONG, "/a/b: file name too long; choose a shorter name"),
    ],
)
def test_each_trouble_with_a_place_is_told_with_its_fix(number, message):
    assert str(place_error(OSError(number, os.strerror(number), "/a/b"))) == message


def test_what_is_about_no_place_is_no_mistake_of_the_user():
    assert place_error(OSError(errno.EACCES, "Permission denied")) is None
    assert place_error(OSError(errno.ECONNRESET, "Connection reset by peer", "/a/b")) is None


def test_a_full_disk_is_told_where_it_is(tmp_path):
    told = str(place_error(OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "x"))))
    assert told.startswith(f"{tmp_path / 'x'}: the disk is full (")
    assert f"left at {tmp_path}); free some space" in told


def test_a_failed_write_names_the_file_and_leaves_nothing(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError) as refused:
        write_atomic(tmp_path / "folder", "text")
    with pytest.raises(FileNotFoundError) as missing:
        write_atomic(tmp_path / "none/file", "text")
    assert refused.value.filename2 == str(tmp_path / "folder")
    assert missing.value.filename == str(tmp_path / "none/file")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
