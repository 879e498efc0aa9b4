"""A secret does not get out by accident, and a log event is safe after `redact`."""

import copy
import json
import logging
import pickle
import traceback
from dataclasses import asdict, dataclass
from enum import Enum

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_service.core.secret import HIDDEN, Secret, redact

KEY = "sk-canary-0123456789"


@dataclass(frozen=True)
class Holder:
    secret: Secret
    name: str


def test_only_reveal_gives_it_out() -> None:
    assert Secret(KEY).reveal() == KEY


@pytest.mark.parametrize(
    "show",
    [
        str,
        repr,
        lambda secret: f"{secret}",
        lambda secret: f"{secret!r:>40}",
        lambda secret: f"{secret:>40}",
        lambda secret: "%s %r" % (secret, secret),  # noqa: UP031  # this way of formatting is what is tried
        lambda secret: repr(Holder(secret, "a")),
        lambda secret: str(asdict(Holder(secret, "a"))),
        lambda secret: repr([secret, {"a": secret}]),
        lambda secret: json.dumps({"a": secret}, default=str),
        lambda secret: logging.LogRecord("a", 20, "p", 1, "%s", (secret,), None).getMessage(),
        lambda secret: repr(copy.deepcopy(secret)) + repr(copy.copy(secret)),
        lambda secret: str(getattr(secret, "__dict__", "")),
        lambda secret: str(Exception(secret)),
    ],
)
def test_nothing_that_prints_shows_it(show: object) -> None:
    assert callable(show)
    assert "canary" not in show(Secret(KEY))


@pytest.mark.parametrize("encode", [pickle.dumps, json.dumps, msgspec.json.encode, msgspec.msgpack.encode, vars])
def test_nothing_that_encodes_takes_it(encode: object) -> None:
    assert callable(encode)
    with pytest.raises(TypeError) as caught:
        encode(Secret(KEY))
    assert "canary" not in "".join(traceback.format_exception(caught.value))


def test_it_equals_only_a_secret() -> None:
    assert Secret(KEY) == Secret(KEY)
    assert Secret(KEY) != Secret("sk-other")
    assert Secret(KEY) != KEY
    with pytest.raises(TypeError):
        hash(Secret(KEY))


class Color(Enum):
    RED = "red"


def test_what_says_nothing_stays() -> None:
    event: dict[str, object] = {
        "event": "attempt_ended",
        "input_tokens": 12,
        "max_tokens": 5,
        "credential_version": "organizations/a/credentials/b/versions/1",
        "key_count": 2,
        "cost": None,
        "ratio": 0.5,
        "is_committed": True,
        "color": Color.RED,
        "models": ["practice/echo", "anthropic/claude-sonnet-4.6"],
    }
    assert redact(event) == {**event, "color": "red"}


@pytest.mark.parametrize(
    "name",
    [
        "authorization",
        "Authorization",
        "x-api-key",
        "api_key",
        "apikey",
        "openai_api_key",
        "client_secret",
        "password",
        "token",
        "access_token",
        "set-cookie",
        "private_key",
        "key_material",
        "plaintext",
    ],
)
def test_the_value_of_a_secret_name_is_dropped(name: str) -> None:
    assert redact({name: "plain"}) == {name: HIDDEN}
    assert redact({"headers": {name: ["plain"]}}) == {"headers": {name: HIDDEN}}


@pytest.mark.parametrize(
    "text",
    [
        "sent Bearer abcdef.1 to it",
        "authorization: basic dXNlcjpwYXNz",
        f"key {KEY} was refused",
        "AIzaSyA0123456789012345678901234567890",
        "AKIAIOSFODNN7EXAMPLE",
        "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl",
        "https://x/?key=sk-ant-api03-canary",
    ],
)
def test_keys_inside_texts_are_masked(text: str) -> None:
    shown = str(redact({"message": text, "nested": [{"deep": (text,)}]}))
    assert HIDDEN in shown
    for leaked in ("abcdef", "dXNl", "canary", "AIza", "AKIA", "eyJ"):
        assert leaked not in shown


def test_foreign_values_become_their_class() -> None:
    shown = redact({"error": ValueError(KEY), "secret_holder": Holder(Secret(KEY), KEY), "body": KEY.encode()})
    assert shown == {"error": "<ValueError>", "secret_holder": "<Holder>", "body": "[20 bytes]"}
    assert redact({"a": Secret(KEY)}) == {"a": HIDDEN}


def test_depth_is_bounded() -> None:
    event: dict[str, object] = {}
    inner = event
    for _ in range(100):
        following: dict[str, object] = {}
        inner["a"] = following
        inner = following
    inner["a"] = KEY
    assert "canary" not in str(redact(event))


@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_a_secret_never_survives_anywhere(value: object) -> None:
    assert "canary" not in str(redact({"value": value, "key": Secret(KEY), "list": [value, Secret(KEY)]}))
