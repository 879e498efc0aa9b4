"""Secrets: what they refuse to do, and what is refused as one."""

import copy
import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vault_service.core.faults import Fault, Reason
from vault_service.core.origins import is_origin
from vault_service.core.secret import Secret, check_key_text, make_fingerprint

CANARY = "sk-CANARY-0123456789abcdefghijklmnop"


def test_a_secret_has_no_text() -> None:
    secret = Secret(CANARY.encode())
    assert CANARY not in repr(secret)
    for use in (str, pickle.dumps, copy.copy, "{}".format, json.dumps, hash):
        with pytest.raises(TypeError) as caught:
            use(secret)
        assert "CANARY" not in str(caught.value)
    assert secret == Secret(CANARY.encode())
    assert secret != Secret(b"other")
    assert secret.reveal() == CANARY.encode()


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("sk-with space-123", "whitespace"),
        ("sk-with-line-feed\n", "whitespace"),
        ("\u00a0sk-no-break-space", "whitespace"),
        ('"sk-quoted-1234"', "quotes"),
        ("'sk-quoted-1234'", "quotes"),
        ("sk-kéy-12345", "characters"),
        ("sk-\x7f-12345", "characters"),
        ("sk-1234", "too_short"),
        ("", "too_short"),
        ("k" * 4097, "too_long"),
    ],
)
def test_what_is_no_key_is_refused_without_repeating_it(text: str, cause: str) -> None:
    with pytest.raises(Fault) as caught:
        check_key_text(text, "secret_material.api_key")
    assert caught.value.reason is Reason.INVALID_SECRET
    assert caught.value.metadata == {"field": "secret_material.api_key", "cause": cause}


@given(
    st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="\"'"), min_size=8, max_size=64)
)
def test_printable_ascii_is_a_key_and_its_fingerprint_tells_little(text: str) -> None:
    assert check_key_text(text, "f") == text
    fingerprint = make_fingerprint(text)
    if len(text) < 24:
        assert fingerprint == ""
    else:
        assert fingerprint.endswith("…" + text[-4:])
        assert len(fingerprint) <= 12


def test_fingerprints_begin_with_the_vendors_prefix() -> None:
    assert make_fingerprint("sk-proj-0123456789abcdefghij9f3c") == "sk-…9f3c"
    assert make_fingerprint("AIza0123456789abcdefghijklmn9f3c") == "AIza…9f3c"
    assert make_fingerprint("0123456789abcdef0123456789abcdef") == "…cdef"


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("https://api.openai.com", True),
        ("http://127.0.0.1:8780", True),
        ("https://[::1]:8443", True),
        ("https://api.openai.com:443", False),
        ("http://example.com:80", False),
        ("https://API.openai.com", False),
        ("https://api.openai.com/", False),
        ("https://api.openai.com/v1", False),
        ("https://api.openai.com?x", False),
        ("https://user@api.openai.com", False),
        ("https://api..com", False),
        ("https://api.openai.com:", False),
        ("https://api.openai.com:0443", False),
        ("https://[example.com]", False),
        ("https://", False),
        ("ftp://example.com", False),
        ("api.openai.com", False),
        ("https://a b", False),
        ("https://api.openai.com\n", False),
        ("https://api.openai.com\\@evil.com", False),
        ("https://x:99999", False),
    ],
)
def test_origins_have_one_spelling(text: str, is_one: bool) -> None:
    assert is_origin(text) is is_one
