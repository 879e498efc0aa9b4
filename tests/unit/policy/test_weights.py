"""Weights of a model's endpoints."""

from collections import Counter
from dataclasses import replace

from router_service.catalog.catalog import Endpoint
from router_service.catalog.loader import load_snapshot
from router_service.core.caller import Credential, Holdings
from router_service.core.resolution import CandidateReason
from router_service.dialects.base import Quirks
from router_service.policy.call import Call, Candidate
from router_service.policy.plan import plan
from router_service.policy.weights import draw_by_weight

STEPS = 1000


def endpoints(*weights: int | None) -> list[Endpoint]:
    return [Endpoint(f"p{number}", "m", Quirks(), "", weight) for number, weight in enumerate(weights)]


def test_each_leads_as_often_as_its_weight_says() -> None:
    made = endpoints(90, 9, None, 0)
    leads = Counter(draw_by_weight(made, "m", "", step / STEPS).ways[0].provider for step in range(STEPS))
    assert leads == {"p0": 900, "p1": 90, "p2": 10}
    for step in range(STEPS):
        first, *others = draw_by_weight(made, "m", "", step / STEPS).ways
        assert others == [endpoint for endpoint in made if endpoint is not first]


def test_without_weights_the_order_is_the_catalogs() -> None:
    made = endpoints(None, None)
    assert draw_by_weight(made, "m", "", 0.9).ways is made
    assert list(draw_by_weight(endpoints(0, 0), "m", "", 0.9).ways) == endpoints(0, 0)


def test_a_user_stays_where_it_was() -> None:
    made = endpoints(50, 50)
    users = [f"acme/user-{number}" for number in range(400)]
    for user in users:
        assert len({draw_by_weight(made, "m", user, step / 10).ways[0].provider for step in range(10)}) == 1
    leads = Counter(draw_by_weight(made, "m", user, 0.0).ways[0].provider for user in users)
    assert 150 < leads["p0"] < 250
    assert len({draw_by_weight(made, f"m{number}", users[0], 0.0).ways[0].provider for number in range(20)}) == 2


def test_the_plan_leads_with_what_was_drawn() -> None:
    text = """
organizations: {demo: {users: [ada], applications: {chat: {payers: [ORGANIZATION_KEY]}}}}
providers:
  one: {dialect: openai_chat, base_url: "https://one.example/v1", auth: bearer}
  two: {dialect: openai_chat, base_url: "https://two.example/v1", auth: bearer}
models:
  acme/large:
    endpoints:
      - {provider: one, upstream_model: large, weight: 3}
      - {provider: two, upstream_model: large, weight: 1}
"""
    snapshot = load_snapshot(text, source="k.yaml", builtin=False)
    demo = snapshot.organizations["demo"]
    keys = tuple(
        Credential(
            f"c/{name}", f"providers/{name}", "", (f"https://{name}.example",), True, f"c/{name}/versions/1", None
        )
        for name in ("one", "two")
    )
    call = Call("acme/large", demo, demo.applications["chat"])

    def decide(call: Call, seed: float) -> tuple[Candidate, ...]:
        return plan(call, snapshot, Holdings(organization=keys), 0.0, seed).candidates

    order = [[found.provider.id for found in decide(call, seed)] for seed in (0.0, 0.7, 0.8)]
    assert order == [["one", "two"], ["one", "two"], ["two", "one"]]
    first, second = decide(call, 0.8)
    assert (first.share, first.reason) == (0.25, CandidateReason.WEIGHT)
    assert (second.share, second.reason) == (None, CandidateReason.CATALOG_ORDER)

    def lead(call: Call, seed: float) -> str:
        return decide(call, seed)[0].provider.id

    labels = [f"thread-{number}" for number in range(4000)]
    leads = Counter(lead(replace(call, conversation=label), 0.0) for label in labels)
    assert 2850 < leads["one"] < 3150, "three quarters, give or take five standard deviations"
    for label in labels[:50]:
        talk = replace(call, conversation=label)
        assert len({lead(replace(talk, user=user), seed) for user in ("", "ada") for seed in (0.0, 0.5, 0.9)}) == 1
    assert {lead(replace(call, user="ada", conversation=label), 0.0) for label in labels[:50]} == {"one", "two"}


def test_fallback_routes_are_drawn_too() -> None:
    text = """
organizations:
  demo:
    users: [ada]
    applications:
      chat:
        payers: [ORGANIZATION_KEY]
        default_model: acme/large
        fallbacks: [{model: acme/small, weight: 3}, {model: acme/tiny}]
providers: {one: {dialect: openai_chat, base_url: "https://one.example/v1", auth: bearer}}
models:
  acme/large: {endpoints: [{provider: one, upstream_model: large}]}
  acme/small: {endpoints: [{provider: one, upstream_model: small}]}
  acme/tiny: {endpoints: [{provider: one, upstream_model: tiny}]}
"""
    snapshot = load_snapshot(text, source="k.yaml", builtin=False)
    demo = snapshot.organizations["demo"]
    key = Credential("c/one", "providers/one", "", ("https://one.example",), True, "c/one/versions/1", None)
    call = Call("", demo, demo.applications["chat"])

    def decide(call: Call, seed: float) -> list[tuple[str, float | None]]:
        found = plan(call, snapshot, Holdings(organization=(key,)), 0.0, seed).candidates
        return [(candidate.endpoint.upstream_model, candidate.share) for candidate in found]

    assert decide(call, 0.7) == [("large", None), ("small", 0.75), ("tiny", None)]
    assert decide(call, 0.8) == [("large", None), ("tiny", 0.25), ("small", None)]
    talk = replace(call, conversation="thread")
    assert len({str(decide(talk, seed / 10)) for seed in range(10)}) == 1
