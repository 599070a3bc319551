"""Secrets are hidden wherever they turn up, and words are not."""

from gradus.core.secrets import HIDDEN, exposure, redacted


def test_values_of_secret_variables_are_hidden(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "plain-words-as-a-key")
    assert redacted("signed with plain-words-as-a-key, refused") == f"signed with {HIDDEN}, refused"


def test_an_empty_or_short_variable_hides_nothing(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "a")
    assert redacted("a cat sat") == "a cat sat"


def test_forms_of_keys_are_hidden():
    token, key = "hf_" + "a1B2c3" * 4, "AKIA" + "0123456789ABCDEF"
    assert redacted(f"token {token} and {key}.") == f"token {HIDDEN} and {HIDDEN}."
    assert redacted(f"Authorization: Bearer {token}x") == f"Authorization: Bearer {HIDDEN}"
    assert redacted("https://h/x?X-Amz-Signature=abc&b=1") == f"https://h/x?X-Amz-Signature={HIDDEN}&b=1"
    assert redacted("s3://name:word@bucket/x") == f"s3://{HIDDEN}@bucket/x"


def test_addresses_and_fingerprints_stay():
    text = "file:///there/artifacts/pretrain-0a1b2c3d4e5f6071 at http://127.0.0.1:80/x"
    assert redacted(text) == text


def test_a_file_of_secrets_that_others_can_read_is_named(tmp_path):
    file = tmp_path / "credentials"
    assert exposure(file) == ""
    file.write_text("key")
    file.chmod(0o640)
    assert exposure(file) == f"{file}: other users of this machine can read this secret; run: chmod 600 {file}"
    file.chmod(0o600)
    assert exposure(file) == ""
