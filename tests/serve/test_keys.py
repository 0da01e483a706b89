"""API keys as they are read, before a server asks for them."""

import hashlib

import pytest

from serve.keys import ApiKeys, read_keys


def test_keys_of_the_environment_and_of_a_file(tmp_path):
    file = tmp_path / "keys"
    hashed = hashlib.sha256(b"third").hexdigest().upper()
    file.write_text(f"# comment\nsecond\n\n  sha256:{hashed}\nfirst\n")
    keys = read_keys(" first , ,fourth", file)
    assert len(keys.digests) == 4
    assert all(keys.allow(f"Bearer {key}") for key in ("first", "second", "third", "fourth"))
    assert keys.allow("bearer first")
    assert not any(key in repr(keys) for key in ("first", "second", "third", "fourth", hashed.lower()))


@pytest.mark.parametrize(
    "header",
    [
        *(None, "", "first", "Bearer", "Bearer ", "Basic first", "Bearer First", "Bearer firs", "Bearer firstt"),
        *("Bearer  first", "Bearer first ", "Bearer first,second", "Bearer " + "x" * 10000, "Bearer \xff"),
        "Bearer sha256:" + hashlib.sha256(b"first").hexdigest(),
    ],
)
def test_headers_without_a_key(header):
    assert not read_keys("first,second", None).allow(header)


def test_no_keys_at_all():
    assert not read_keys(None, None) and not ApiKeys()


@pytest.mark.parametrize("listed", ["", ",", " , ", "a b", "schlüssel", "a\x00", "sha256:abc", "sha256:" + "g" * 64])
def test_sources_that_hold_no_key(listed, tmp_path):
    with pytest.raises(ValueError, match="CLLM_API_KEYS") as error:
        read_keys(listed, None)
    assert not listed.strip(" ,") or listed not in str(error.value)
    file = tmp_path / "keys"
    file.write_text(listed.replace(",", "\n"))
    with pytest.raises(ValueError, match="api_key_file"):
        read_keys(None, file)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(ValueError, match="api_key_file.*nowhere"):
        read_keys(None, tmp_path / "nowhere")
