"""A provider that repeats the key it was sent: what is taken out of its words, and what is left as it is."""

import json

from hypothesis import given
from hypothesis import strategies as st

from router_service.core.secret import HIDDEN, Hiding, Secret, quote

KEY = "sk-proj-Ab3dE5gH7jK9mN1pQ2rS4tU6vW8xY0zA-bC_dEfGhIjKlMnOpQrSt"


def test_a_key_is_taken_out_whole_in_any_case_and_cut() -> None:
    hide = Hiding(Secret(KEY))
    for said in (KEY, KEY.lower(), KEY.upper(), KEY[:40], KEY[-40:]):
        told = json.dumps({"error": {"message": f"Incorrect API key provided: {said}.", "code": said}}).encode()
        hidden = hide(told)
        assert said.lower().encode() not in hidden.lower()
        assert json.loads(hidden)["error"]["message"].endswith(f"{HIDDEN}.")


def test_what_is_no_key_stays_the_same_object() -> None:
    hide = Hiding(Secret(KEY))
    words = b'{"choices":[{"delta":{"content":"Hello, sk-proj is a prefix"}}]}'
    assert hide(words) is words
    assert Hiding(None)(words) is words


def test_a_short_key_is_taken_out_only_whole() -> None:
    hide = Hiding(Secret("ollama-key"))
    assert hide(b"ollama-ke") == b"ollama-ke"
    assert hide(b"<ollama-key>") == f"<{HIDDEN}>".encode()


@given(key=st.text("abcXYZ019-_+/=&<>{}~$\\", min_size=46, max_size=90), before=st.binary(), after=st.binary())
def test_no_long_run_of_a_key_is_left(key: str, before: bytes, after: bytes) -> None:
    hidden = Hiding(Secret(key))(before + key.encode() + after).lower()
    runs = "".join(one if one.isalnum() or one in "-_" else " " for one in key.lower()).split()
    for run in runs:
        if len(run) >= 23:
            assert run.encode() not in hidden


def test_a_key_in_a_name_is_not_said_back() -> None:
    assert quote("sonet-4.5") == "sonet-4.5"
    assert quote("accounts/fireworks/models/llama-v3p1-405b-instruct") == (
        "accounts/fireworks/models/llama-v3p1-405b-instruct"
    )
    assert quote("organizations/demo/users/ada") == "organizations/demo/users/ada"
    assert KEY not in quote(KEY)
    assert quote("0123456789abcdef0123456789abcdef") == HIDDEN
