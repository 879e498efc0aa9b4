"""Plans: which model, over which providers, on whose key, and why the others were not taken."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_service.catalog.catalog import Organization, Route, Snapshot
from router_service.core.caller import Holdings
from router_service.core.endpoint import AuthScheme
from router_service.core.faults import Fault, Reason
from router_service.core.resolution import ModelSource, Payer, PayerFailoverCause, SkipReason
from router_service.policy.call import Call, Needs, Plan, RoutePolicy
from router_service.policy.plan import plan
from tests.unit.policy.world import NOW, OWNERS, PAYERS, call, credential, holdings, model, provider, snapshot

EVERYTHING = holdings(user="one two three", organization="one two three", deployment="one two three")
EVERY_CAUSE = frozenset(PayerFailoverCause)


def decide(made: Call, have: Holdings = EVERYTHING, configured: Snapshot | None = None) -> Plan:
    """The plan for a call."""
    return plan(made, configured or snapshot(), have, NOW)


def taken(decided: Plan) -> list[tuple[str, str, Payer]]:
    """The candidates: model, provider, payer."""
    return [(one.model.id, one.provider.id, one.payer) for one in decided.candidates]


def reasons(decided: Plan, payer: Payer | None) -> set[SkipReason]:
    """Why candidates of a payer were not taken."""
    return {one.reason for one in decided.skipped if one.payer is payer}


def refused(made: Call, have: Holdings = EVERYTHING, configured: Snapshot | None = None) -> Fault:
    """The fault that a plan raises or holds."""
    try:
        decided = decide(made, have, configured)
    except Fault as fault:
        return fault
    assert decided.failure is not None
    assert decided.candidates == ()
    return decided.failure


def test_the_first_payer_with_a_key_pays_at_every_provider_of_the_model() -> None:
    decided = decide(call())
    assert taken(decided) == [("m", "one", Payer.USER_KEY), ("m", "two", Payer.USER_KEY)]
    assert reasons(decided, Payer.CREDITS) == {SkipReason.EARLIER_PAYER}


def test_absence_moves_on() -> None:
    assert taken(decide(call(), holdings(deployment="one")))[0] == ("m", "one", Payer.SHARED_KEY)
    assert taken(decide(call(), holdings(organization="two"))) == [("m", "two", Payer.ORGANIZATION_KEY)]


@pytest.mark.parametrize(
    "change",
    [{"is_enabled": False}, {"active_version": ""}, {"expire_time": NOW}, {"allowed_origins": ("https://x.example",)}],
)
def test_a_key_that_cannot_be_used_is_as_absent(change: dict[str, object]) -> None:
    have = replace(
        holdings(organization="one"),
        user=(credential(OWNERS[Payer.USER_KEY], "one", **change),),
    )
    decided = decide(call(), have)
    assert taken(decided) == [("m", "one", Payer.ORGANIZATION_KEY)]
    assert reasons(decided, Payer.USER_KEY) & {SkipReason.CREDENTIAL_DISABLED, SkipReason.ORIGIN_NOT_ALLOWED}


def test_a_second_key_of_the_owner_serves_where_the_first_cannot() -> None:
    first = credential(OWNERS[Payer.USER_KEY], "one", is_enabled=False)
    other = credential(OWNERS[Payer.USER_KEY], "one", name=f"{OWNERS[Payer.USER_KEY]}/credentials/spare")
    decided = decide(call(), replace(holdings(), user=(first, other)))
    assert [one.credential for one in decided.candidates] == [other]


@given(
    payers=st.lists(st.sampled_from(PAYERS), min_size=1, unique=True),
    wanted=st.lists(st.sampled_from(list(Payer)), unique=True),
    causes=st.frozensets(st.sampled_from(list(PayerFailoverCause))),
    have=st.tuples(*[st.sampled_from(["", "one", "two", "one two"])] * 3),
    byok=st.booleans(),
    native=st.sampled_from(["", "one", "two", "three"]),
)
def test_a_call_narrows_and_never_adds(
    payers: list[Payer],
    wanted: list[Payer],
    causes: frozenset[PayerFailoverCause],
    have: tuple[str, str, str],
    byok: bool,
    native: str,
) -> None:
    keys = holdings(user=have[0], organization=have[1], deployment=have[2], byok=byok)
    made = call(
        policy=RoutePolicy(payers=tuple(wanted)), payers=tuple(payers), payer_failover_on=causes, native_provider=native
    )
    if not set(wanted) <= set(payers):
        assert refused(made, keys).fields.keys() == {"call.route_policy.payers"}
        return
    decided = decide(made, keys)
    allowed = [payer for payer in payers if not wanted or payer in wanted]
    used = [one.payer for one in decided.candidates]
    assert set(used) <= set(allowed)
    assert [allowed.index(payer) for payer in used] == sorted(allowed.index(payer) for payer in used)
    first = used[0] if used else None
    assert all(one.is_payer_failover == (one.payer is not first) for one in decided.candidates)
    if not causes:
        assert len(set(used)) <= 1
    assert (decided.failure is None) == bool(used)
    for one in decided.candidates:
        assert one.credential is not None
        assert one.credential.provider == one.provider.name
        assert not (one.payer.is_own_key and native and one.provider.id != native)
        assert byok or one.payer is not Payer.USER_KEY


def test_later_payers_follow_only_where_the_application_states_causes() -> None:
    decided = decide(call(payer_failover_on=EVERY_CAUSE))
    assert [one.payer for one in decided.candidates if not one.is_payer_failover] == [Payer.USER_KEY] * 2
    assert {one.payer for one in decided.candidates} == set(PAYERS)
    narrowed = RoutePolicy(payer_failover_on=frozenset())
    assert {one.payer for one in decide(call(policy=narrowed, payer_failover_on=EVERY_CAUSE)).candidates} == {
        Payer.USER_KEY
    }


def test_a_call_adds_no_cause() -> None:
    policy = RoutePolicy(payer_failover_on=frozenset({PayerFailoverCause.UNAVAILABLE}))
    assert refused(call(policy=policy)).fields.keys() == {"call.route_policy.payer_failover_on"}


def test_a_native_provider_binds_an_own_key() -> None:
    have = holdings(organization="one", deployment="one two three")
    fault = refused(call("o", native_provider="one"), have)
    assert fault.reason is Reason.MODEL_NOT_ALLOWED_WITH_OWN_KEY
    assert fault.metadata == {"model": "o", "nativeProvider": "providers/one"}
    assert taken(decide(call("m", native_provider="one"), have)) == [("m", "one", Payer.ORGANIZATION_KEY)]
    without = holdings(deployment="one two three")
    payers = (Payer.ORGANIZATION_KEY, Payer.CREDITS)
    assert taken(decide(call("o", native_provider="one", payers=payers), without)) == [("o", "three", Payer.CREDITS)]


def test_an_application_may_do_without_own_keys() -> None:
    decided = decide(call(byok_supported=False))
    assert {one.payer for one in decided.candidates} == {Payer.SHARED_KEY}
    assert reasons(decided, Payer.USER_KEY) == {SkipReason.BYOK_NOT_SUPPORTED}


def test_a_provider_may_sell_no_keys() -> None:
    configured = snapshot(providers=(provider("one", is_byok_supported=False),))
    assert taken(decide(call(), holdings(user="one", deployment="one"), configured)) == [("m", "one", Payer.SHARED_KEY)]


@pytest.mark.parametrize("here", [True, False])
def test_own_keys_of_users_can_be_switched_off(here: bool) -> None:
    have, configured = (
        (holdings(user="one", byok=False), snapshot()) if here else (EVERYTHING, snapshot(byok_enabled=False))
    )
    payers = (Payer.USER_KEY,)
    assert refused(call(payers=payers), have, configured).reason is Reason.BYOK_DISABLED
    assert Payer.USER_KEY not in {
        one.payer for one in decide(call(), EVERYTHING, snapshot(byok_enabled=False)).candidates
    }


def test_a_binding_names_the_key() -> None:
    name = f"{OWNERS[Payer.ORGANIZATION_KEY]}/credentials/bound"
    bound = credential(OWNERS[Payer.ORGANIZATION_KEY], "one", name=name)
    have = replace(holdings(), organization=(credential(OWNERS[Payer.ORGANIZATION_KEY], "one"), bound))
    decided = decide(call(bindings={Payer.ORGANIZATION_KEY: name}), have)
    assert [one.credential for one in decided.candidates] == [bound]
    gone = refused(call(bindings={Payer.ORGANIZATION_KEY: f"{name}-gone"}, payers=(Payer.ORGANIZATION_KEY,)), have)
    assert gone.reason is Reason.NO_USABLE_CREDENTIAL


def test_a_credential_of_the_deployment_serves_only_the_payers_that_it_is_for() -> None:
    configured = snapshot()
    none = replace(configured, deployment_credentials={})
    assert refused(call(), holdings(deployment="one"), none).reason is Reason.NO_USABLE_CREDENTIAL


def test_credits_need_a_price() -> None:
    configured = snapshot(model("m", "one", price=None))
    fault = refused(call(payers=(Payer.USER_KEY, Payer.CREDITS)), holdings(deployment="one"), configured)
    assert fault.reason is Reason.PRICE_UNKNOWN
    assert fault.metadata == {"model": "m", "payer": "PAYER_CREDITS"}
    assert taken(decide(call(), holdings(deployment="one"), configured)) == [("m", "one", Payer.SHARED_KEY)]


def test_a_provider_without_keys_is_not_served_by_own_keys() -> None:
    configured = snapshot(model("m", "free"), providers=(provider("free", auth=AuthScheme.NONE),))
    decided = decide(call(), holdings(), configured)
    assert [(one.payer, one.credential) for one in decided.candidates] == [(Payer.SHARED_KEY, None)]


def test_the_order_of_providers_is_the_calls_then_the_applications_then_the_catalogs() -> None:
    policy = RoutePolicy(provider_order=("two",))
    assert [one[1] for one in taken(decide(call(policy=policy)))] == ["two", "one"]
    assert [one[1] for one in taken(decide(call(provider_order=("two", "one"))))] == ["two", "one"]
    assert [one[1] for one in taken(decide(call(policy=replace(policy, allow_fallbacks=False))))] == ["two"]
    excluded = decide(call(policy=RoutePolicy(provider_order=("two",), allow_fallbacks=False)))
    assert reasons(excluded, None) == {SkipReason.PROVIDER_EXCLUDED}


def test_fallback_routes_follow_under_the_same_payer() -> None:
    route = Route("n")
    decided = decide(call(fallbacks=(route,)))
    assert [one.source for one in decided.candidates] == [ModelSource.CALL] * 2 + [ModelSource.FALLBACK_ROUTE]
    assert {one.payer for one in decided.candidates} == {Payer.USER_KEY}
    assert len(decide(call(fallbacks=(route,), policy=RoutePolicy(allow_fallbacks=False))).candidates) == 2
    own = decide(call(fallbacks=(route,), policy=RoutePolicy(fallbacks=(Route("o"),))))
    assert [one.model.id for one in own.candidates] == ["m", "m", "o"]


def test_a_fallback_route_may_serve_where_nobody_can_pay_for_the_model() -> None:
    decided = decide(call(fallbacks=(Route("o"),)), holdings(organization="three"))
    assert taken(decided) == [("o", "three", Payer.ORGANIZATION_KEY)]


def test_a_fallback_route_names_its_key_and_provider() -> None:
    name = f"{OWNERS[Payer.USER_KEY]}/credentials/two"
    route = Route("m", provider="two", credential=name)
    decided = decide(call(policy=RoutePolicy(fallbacks=(route,))))
    last = decided.candidates[-1]
    assert last.credential is not None
    assert (last.provider.id, last.credential.name) == ("two", name)
    stranger = Route("m", credential="organizations/other/credentials/x")
    assert len(decide(call(policy=RoutePolicy(fallbacks=(stranger,)))).candidates) == 2


def test_a_fallback_of_the_call_that_is_not_there_is_an_error_and_one_of_the_application_is_skipped() -> None:
    assert refused(call(policy=RoutePolicy(fallbacks=(Route("nope"),)))).reason is Reason.MODEL_NOT_FOUND
    assert reasons(decide(call(fallbacks=(Route("nope"),))), None) == {SkipReason.MODEL_NOT_FOUND}


def test_a_call_gets_the_model_that_it_names_or_an_error() -> None:
    configured = snapshot(model("acme/sonnet-4", "one"), model("m", "one", is_enabled=False))
    fault = refused(call("acme/sonet-4"), configured=configured)
    assert (fault.reason, fault.metadata["nearest"]) == (Reason.MODEL_NOT_FOUND, "acme/sonnet-4")
    assert refused(call("m"), configured=configured).reason is Reason.MODEL_NOT_FOUND
    assert refused(call("acme/sonnet-4", allowed_models=("other/*",)), configured=configured).reason is (
        Reason.MODEL_NOT_ALLOWED
    )


def test_defaults_are_asked_in_order_and_the_skipped_are_named() -> None:
    configured = snapshot(model("m", "one"), model("n", "two", is_enabled=False), default_model="m")
    made = call("", default_model="nope")
    made = replace(made, organization=Organization("acme", default_model="n"))
    decided = decide(made, configured=configured)
    assert [(one.source, one.reason) for one in decided.skipped_choices] == [
        (ModelSource.APPLICATION_DEFAULT, SkipReason.MODEL_NOT_FOUND),
        (ModelSource.ORGANIZATION_DEFAULT, SkipReason.MODEL_DISABLED),
    ]
    assert {one.source for one in decided.candidates} == {ModelSource.DEPLOYMENT_DEFAULT}
    assert decide(call("", default_model="m"), configured=configured).candidates[0].source is (
        ModelSource.APPLICATION_DEFAULT
    )


def test_without_any_default_the_first_usable_model_serves() -> None:
    decided = decide(call(""), holdings(user="three"))
    assert taken(decided) == [("o", "three", Payer.USER_KEY)]
    assert decided.candidates[0].source is ModelSource.FIRST_USABLE


def test_what_an_endpoint_cannot_do_is_not_asked_of_it() -> None:
    made = replace(call(), needs=Needs(tool_dialects=frozenset({"anthropic_messages"})))
    decided = decide(made)
    assert decided.failure is not None
    assert reasons(decided, None) == {SkipReason.CAPABILITY_MISSING}


def test_a_provider_that_is_switched_off_is_not_asked() -> None:
    configured = snapshot(providers=(provider("one", is_enabled=False),))
    assert [one[1] for one in taken(decide(call(), configured=configured))] == ["two"]


def test_a_payer_that_the_call_leaves_out_is_named() -> None:
    decided = decide(call(policy=RoutePolicy(payers=(Payer.SHARED_KEY,))))
    assert reasons(decided, Payer.CREDITS) == {SkipReason.PAYER_EXCLUDED}
