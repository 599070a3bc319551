"""Push to S3 and pull from it, against moto's server; `make test-peers` runs it."""

import os
import threading

import pytest
from toy_home import contents

from gradus.release.place import PlaceError, open_place
from gradus.release.pull import pull
from gradus.release.push import Push

pytest.importorskip("s3fs", reason="s3fs is not installed (make test-peers)")
server = pytest.importorskip("moto.server", reason="moto is not installed (make test-peers)")

# Of aiobotocore and the HTTP server of moto, not of gradus.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
KEY, SECRET = "AKIA" + "EXAMPLE9EXAMPLE9", "very-" + "secret-" * 3


@pytest.fixture
def bucket(monkeypatch, tmp_path):
    """An empty bucket of a server of this test."""
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    # The buckets of one process are those of all its servers.
    name = f"shelf-{os.urandom(4).hex()}"
    s3fs.S3FileSystem().mkdir(name)
    yield f"s3://{name}/runs"
    running.stop()
    s3fs.S3FileSystem.clear_instance_cache()


def send(home, address):
    pushing = Push(home.path, "toy", open_place(address), 100, lambda text: None)
    return pushing.run(threading.Event(), follow=False), pushing.state


def test_what_is_pushed_to_s3_is_pulled_byte_for_byte_and_sent_once(home, bucket, tmp_path):
    # One file larger than a part of S3's multipart uploads as s3fs cuts them.
    home.finish("corpus", large=bytes(range(256)) * (1 << 18), small=b"s")
    home.checkpoint(100)
    done, state = send(home, bucket)
    assert done, state.problem
    again = send(home, bucket)[1]
    assert (again.sent, again.sent_bytes) == (0, 0)
    pulled = pull(open_place(bucket), tmp_path / "other", None, lambda text: None)
    assert pulled.checkpoints == {home.names["pretrain"]: 100}
    left_out = (".push", ".lock", ".pull", ".verified", "push.json")
    assert contents(tmp_path / "other", *left_out) == contents(home.path, *left_out)


def test_files_that_the_bucket_has_are_copied_inside_it(home, bucket):
    home.finish("corpus", shard=b"s" * 9000)
    home.finish("tokens", shard=b"s" * 9000, more=b"m")
    done, state = send(home, bucket)
    assert done, state.problem
    assert 9000 < state.sent_bytes < 18000


def test_a_bucket_that_is_not_there_is_refused_at_once_and_no_key_is_told(home, bucket):
    home.finish("corpus")
    with pytest.raises(PlaceError, match="there is no elsewhere") as caught:
        send(home, "s3://elsewhere/runs")
    assert KEY not in str(caught.value)
    assert SECRET not in str(caught.value)
