"""The options that go into an attempt are those of the layer that won."""

import json

import pytest

from router_service.catalog.catalog import Route
from router_service.core.caller import Caller
from router_service.core.content import Message, Part, Role, Text
from router_service.core.request import (
    Completion,
    ProviderOptions,
    ReasoningSettings,
    Sampling,
    Settings,
    UpstreamRouting,
)
from router_service.core.secret import Secret
from router_service.policy.plan import plan
from router_service.policy.settings import parse_options
from router_service.preparation import Request, prepare
from tests.unit.policy.world import NOW, call, holdings, model, snapshot

CALLER = Caller("t", "", "", "", frozenset(), frozenset(), 0.0, Secret("x"))


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
    request = Request(made, completion, entries, CALLER, "p", "", "r")
    body = json.loads(prepare(request, candidate).encoded.body)
    assert {key for key in body if key.startswith("x_")} == {f"x_{expected}"}


@pytest.mark.parametrize("is_asked", [False, True])
def test_nobody_is_warned_of_what_only_the_catalog_wants(is_asked: bool) -> None:
    wanted = Settings(
        sampling=Sampling(top_k=4),
        reasoning=ReasoningSettings(budget_tokens=100),
        upstream_routing=UpstreamRouting(order=("google",)),
    )
    configured = snapshot(model("m", "one", defaults=wanted))
    made = call()
    candidate = plan(made, configured, holdings(user="one"), NOW).candidates[0]
    message = Message(Role.USER, (Part(Text("hi")),))
    completion = Completion("", "", (message,), settings=wanted if is_asked else Settings())
    prepared = prepare(Request(made, completion, [], CALLER, "p", "", "r"), candidate)
    fields = {warning.field for warning in prepared.warnings}
    told = {"settings.sampling.top_k", "settings.reasoning.budget_tokens", "settings.upstream_routing"}
    assert fields == (told if is_asked else set())
    assert prepared.settings == wanted
