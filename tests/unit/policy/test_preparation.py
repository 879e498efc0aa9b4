"""The options that go into an attempt are those of the layer that won."""

import json

import pytest

from router_service.catalog.catalog import Route
from router_service.core.caller import Caller
from router_service.core.content import Message, Part, Role, Text
from router_service.core.request import Completion, ProviderOptions, Settings
from router_service.core.secret import Secret
from router_service.policy.plan import plan
from router_service.policy.settings import parse_options
from router_service.preparation import Request, prepare
from tests.unit.policy.world import NOW, call, holdings, model, snapshot


def with_option(name: str) -> Settings:
    """Settings with one option."""
    return Settings(provider_options=(ProviderOptions("", json.dumps({name: 1})),))


@pytest.mark.parametrize(
    ("route", "asked", "default", "expected"),
    [
        ("r", "c", "d", "r"),
        ("", "c", "d", "c"),
        ("", "", "d", "d"),
        ("r", "", "", "r"),
    ],
)
def test_the_highest_layer_with_options_sends_them(route: str, asked: str, default: str, expected: str) -> None:
    def settings(name: str) -> Settings:
        return with_option(f"x_{name}") if name else Settings()

    configured = snapshot(model("m", "one", defaults=settings(default)))
    made = call(fallbacks=(Route("m", settings=settings(route)),))
    candidate = plan(made, configured, holdings(user="one"), NOW).candidates[-1]
    completion = Completion("", "", (Message(Role.USER, (Part(Text("hi")),)),), settings=settings(asked))
    entries = [(one, parse_options(one, "x")) for one in completion.settings.provider_options]
    caller = Caller("t", "", "", "", frozenset(), frozenset(), 0.0, Secret("x"))
    request = Request(made, completion, entries, caller, "p", "", "r")
    body = json.loads(prepare(request, candidate).encoded.body)
    assert {key for key in body if key.startswith("x_")} == {f"x_{expected}"}
