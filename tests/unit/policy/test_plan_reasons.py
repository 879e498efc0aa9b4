"""Corners of the decision: bindings and pinned keys, routes where nobody can pay, and what a refusal says."""

from dataclasses import replace
from typing import Any

import pytest

from router_service.catalog.catalog import DeploymentCredential, Endpoint, Model, Route
from router_service.core.faults import Fault, Reason
from router_service.core.request import Sampling, Settings
from router_service.core.resolution import ModelSource, Payer, PayerFailoverCause, SkipReason
from router_service.dialects.base import Quirks
from router_service.policy.call import Needs, RoutePolicy
from router_service.policy.plan import plan
from router_service.policy.resolve import choose_model
from router_service.policy.retry import next_step
from tests.unit.policy.test_plan import EVERYTHING, decide, reasons, refused, taken
from tests.unit.policy.world import NOW, OWNERS, PRICE, call, credential, holdings, model, provider, snapshot

MINE = OWNERS[Payer.USER_KEY]
SPARE = f"{MINE}/credentials/spare"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"is_enabled": False}, SkipReason.CREDENTIAL_DISABLED),
        ({"active_version": ""}, SkipReason.CREDENTIAL_DISABLED),
        ({"expire_time": NOW}, SkipReason.CREDENTIAL_DISABLED),
        ({"allowed_origins": ("https://one.example.evil",)}, SkipReason.ORIGIN_NOT_ALLOWED),
        ({"allowed_origins": ()}, SkipReason.ORIGIN_NOT_ALLOWED),
        ({"provider": "providers/three"}, SkipReason.NO_CREDENTIAL),
    ],
)
def test_the_reason_for_passing_a_key_over_is_told(change: dict[str, object], reason: SkipReason) -> None:
    have = replace(holdings(deployment="one"), user=(credential(MINE, "one", **change),))
    configured = snapshot(model("m", "one"))
    decided = decide(call(), have, configured)
    assert taken(decided) == [("m", "one", Payer.SHARED_KEY)]
    assert reasons(decided, Payer.USER_KEY) == {reason}
    alone = refused(call(payers=(Payer.USER_KEY,)), have, configured)
    assert alone.reason is Reason.NO_USABLE_CREDENTIAL
    assert alone.metadata == {"model": "m", "payers": "PAYER_USER_KEY"}


def test_a_key_that_expires_later_serves() -> None:
    have = replace(holdings(), user=(credential(MINE, "one", expire_time=NOW + 0.1),))
    assert taken(decide(call(), have)) == [("m", "one", Payer.USER_KEY)]


def test_a_route_that_names_a_key_stands_above_the_binding() -> None:
    bound, pinned = credential(MINE, "one"), credential(MINE, "one", name=SPARE)
    have = replace(holdings(), user=(bound, pinned))
    made = call(bindings={Payer.USER_KEY: bound.name}, fallbacks=(Route("m", credential=SPARE), Route("m")))
    assert [one.credential for one in decide(made, have).candidates] == [bound, pinned, bound]


def test_a_route_that_names_a_key_has_no_other() -> None:
    made = call(fallbacks=(Route("n", credential=SPARE),))
    assert taken(decide(made)) == [("m", "one", Payer.USER_KEY), ("m", "two", Payer.USER_KEY)]
    organizations = f"{OWNERS[Payer.ORGANIZATION_KEY]}/credentials/two"
    only_mine = RoutePolicy(payers=(Payer.USER_KEY,), fallbacks=(Route("n", credential=organizations),))
    assert {one.model.id for one in decide(call(policy=only_mine)).candidates} == {"m"}


def test_a_binding_to_another_providers_key_leaves_the_payer_without_one() -> None:
    made = call(bindings={Payer.USER_KEY: f"{MINE}/credentials/three"})
    decided = decide(made)
    assert {one.payer for one in decided.candidates} == {Payer.ORGANIZATION_KEY}
    assert reasons(decided, Payer.USER_KEY) == {SkipReason.NO_CREDENTIAL}


def test_a_deleted_native_key_opens_credits_again() -> None:
    made = call("o", native_provider="one", payers=(Payer.USER_KEY, Payer.CREDITS))
    gone = replace(holdings(deployment="three"), user=())
    assert refused(made, holdings(user="one", deployment="three")).reason is Reason.MODEL_NOT_ALLOWED_WITH_OWN_KEY
    assert taken(decide(made, gone)) == [("o", "three", Payer.CREDITS)]
    off = replace(gone, user=(credential(MINE, "one", is_enabled=False),))
    assert taken(decide(made, off)) == [("o", "three", Payer.CREDITS)]
    assert taken(decide(made, holdings(user="one", deployment="three", byok=False))) == [("o", "three", Payer.CREDITS)]


def test_an_own_key_of_another_provider_does_not_bind() -> None:
    made = call("o", native_provider="one", payers=(Payer.USER_KEY, Payer.CREDITS))
    decided = decide(made, holdings(user="three", deployment="three"))
    assert taken(decided) == [("o", "three", Payer.CREDITS)]
    assert reasons(decided, Payer.USER_KEY) == {SkipReason.MODEL_NOT_ALLOWED_WITH_OWN_KEY}


def test_a_default_is_bound_by_the_native_provider_as_the_calls_model_is() -> None:
    made = call("", native_provider="one", default_model="o")
    assert refused(made, holdings(user="one", deployment="three")).reason is Reason.MODEL_NOT_ALLOWED_WITH_OWN_KEY


def test_each_payer_of_the_deployment_has_its_own_credentials() -> None:
    served = {
        "one": DeploymentCredential("one", "one", frozenset({Payer.CREDITS})),
        "two": DeploymentCredential("two", "two", frozenset({Payer.FREE})),
    }
    configured = replace(snapshot(), deployment_credentials=served)
    have = holdings(deployment="one two three")
    for payer, expected in ((Payer.CREDITS, "one"), (Payer.FREE, "two")):
        assert taken(decide(call(payers=(payer,)), have, configured)) == [("m", expected, payer)]
    assert refused(call(payers=(Payer.SHARED_KEY,)), have, configured).reason is Reason.NO_USABLE_CREDENTIAL


def test_where_nobody_can_pay_for_the_model_every_route_of_the_next_payer_follows() -> None:
    made = call(fallbacks=(Route("gone"), Route("n"), Route("o")))
    configured = snapshot(model("m", "one"), model("n", "two"), model("o", "three"))
    decided = decide(made, holdings(organization="three", deployment="two three"), configured)
    assert taken(decided) == [("n", "two", Payer.SHARED_KEY), ("o", "three", Payer.SHARED_KEY)]
    failing_over = replace(
        made,
        application=replace(made.application, payer_failover_on=frozenset({PayerFailoverCause.UNAVAILABLE})),
    )
    decided = decide(failing_over, holdings(organization="three", deployment="two three"), configured)
    assert [(one.payer, one.is_payer_failover) for one in decided.candidates] == [
        (Payer.SHARED_KEY, False),
        (Payer.SHARED_KEY, False),
        (Payer.CREDITS, True),
        (Payer.CREDITS, True),
    ]


def test_the_payer_is_the_one_who_can_pay_for_the_calls_own_model() -> None:
    decided = decide(call("m", fallbacks=(Route("o"),)), holdings(user="three", organization="one"))
    assert taken(decided) == [("m", "one", Payer.ORGANIZATION_KEY)]


@pytest.mark.parametrize(
    ("route", "fields", "reason"),
    [
        ("gone", {}, SkipReason.MODEL_NOT_FOUND),
        ("n", {}, SkipReason.MODEL_DISABLED),
        ("o", {"allowed_models": ("m",)}, SkipReason.MODEL_NOT_ALLOWED),
    ],
)
def test_a_route_of_the_application_that_cannot_be_is_skipped_with_its_reason(
    route: str, fields: dict[str, Any], reason: SkipReason
) -> None:
    configured = snapshot(model("m", "one"), model("n", "two", is_enabled=False), model("o", "three"))
    decided = decide(call(fallbacks=(Route(route),), **fields), configured=configured)
    assert [(one.model, one.reason) for one in decided.skipped if one.payer is None] == [(route, reason)]
    assert {one.model.id for one in decided.candidates} == {"m"}


def test_a_route_brings_its_settings_and_its_word_on_long_prompts() -> None:
    tuned = Settings(sampling=Sampling(temperature=0.0))
    route = Route("n", settings=tuned, on_context_too_long=True)
    *main, last = decide(call(fallbacks=(Route("o"), route))).candidates
    assert (last.route_settings, last.serves_longer_prompts, last.source) == (tuned, True, ModelSource.FALLBACK_ROUTE)
    assert not any(one.serves_longer_prompts or one.route_settings != Settings() for one in main)


def test_too_long_a_prompt_leads_only_to_a_route_that_takes_it() -> None:
    candidates = decide(call(fallbacks=(Route("o"), Route("n", on_context_too_long=True)))).candidates
    fault = Fault(Reason.CONTEXT_TOO_LONG, "x")
    step = next_step(fault, candidates, 0, 1, frozenset(), 0.5)
    assert step is not None
    assert candidates[step.candidate].model.id == "n"
    assert next_step(fault, candidates[:-1], 0, 1, frozenset(), 0.5) is None


def test_a_rejected_key_is_not_tried_again_on_anothers_account() -> None:
    causes = frozenset({PayerFailoverCause.CREDENTIAL_REJECTED})
    made = call(payers=(Payer.SHARED_KEY, Payer.CREDITS), payer_failover_on=causes)
    candidates = decide(made, holdings(deployment="one"), snapshot(model("m", "one"))).candidates
    assert [one.payer for one in candidates] == [Payer.SHARED_KEY, Payer.CREDITS]
    assert next_step(Fault(Reason.UPSTREAM_CREDENTIAL_REJECTED, "x"), candidates, 0, 1, causes, 0.5) is None


def test_a_price_that_is_not_known_is_told_of_the_model_that_lacks_it() -> None:
    unpriced = snapshot(model("m", "one"), model("n", "two", price=None))
    paid = (Payer.CREDITS,)
    assert refused(call("", payers=paid), holdings(), unpriced).reason is Reason.NO_USABLE_CREDENTIAL
    without = snapshot(model("m", "one", price=None), model("n", "two", price=None))
    fault = refused(call("", payers=paid), holdings(deployment="one two"), without)
    assert (fault.reason, fault.metadata["model"]) == (Reason.PRICE_UNKNOWN, "m")
    fault = refused(call("m", payers=paid, fallbacks=(Route("n"),)), holdings(), unpriced)
    assert fault.reason is Reason.NO_USABLE_CREDENTIAL
    assert taken(decide(call("", payers=paid), holdings(deployment="one two"), unpriced)) == [
        ("m", "one", Payer.CREDITS)
    ]


def test_a_refusal_always_says_what_to_do() -> None:
    off = snapshot(providers=(provider("one", is_enabled=False), provider("two", is_enabled=False)))
    fault = refused(call(), configured=off)
    assert fault.reason is Reason.NO_USABLE_CREDENTIAL
    assert "providers/one is switched off" in fault.message
    fault = refused(call("", allowed_models=()))
    assert fault.reason is Reason.NO_USABLE_CREDENTIAL
    assert "administrator" in fault.message


def test_keys_switched_off_are_the_error_only_where_no_other_payer_is_asked() -> None:
    both = call(payers=(Payer.USER_KEY, Payer.ORGANIZATION_KEY))
    assert refused(both, holdings(user="one", byok=False)).reason is Reason.NO_USABLE_CREDENTIAL
    narrowed = replace(both, policy=RoutePolicy(payers=(Payer.USER_KEY,)))
    fault = refused(narrowed, holdings(user="one", byok=False))
    assert (fault.reason, fault.metadata) == (Reason.BYOK_DISABLED, {"payers": "PAYER_USER_KEY"})


def test_a_strict_schema_goes_only_where_it_is_promised() -> None:
    loose = Endpoint("one", "m", Quirks(supports_strict_schema=False))
    strict = Endpoint("two", "m", Quirks())
    configured = snapshot(Model("m", (loose, strict), price=PRICE))
    decided = decide(replace(call(), needs=Needs(strict_schema=True)), configured=configured)
    assert taken(decided) == [("m", "two", Payer.USER_KEY)]
    assert [(one.provider, one.reason) for one in decided.skipped if one.payer is None] == [
        ("providers/one", SkipReason.CAPABILITY_MISSING)
    ]


@pytest.mark.parametrize("reference", ["m", "short", "upstream-m"])
def test_a_reference_is_an_id_an_alias_or_an_upstream_name(reference: str) -> None:
    named = Model("m", (Endpoint("one", "upstream-m", Quirks()),), aliases=("short",), price=PRICE)
    decided = decide(call(reference), configured=snapshot(named))
    assert (decided.requested_model, taken(decided)) == (reference, [("m", "one", Payer.USER_KEY)])


def test_a_key_written_for_a_model_is_not_said_back() -> None:
    fault = refused(call("sk-abcdefghijklmnop0123456789"))
    assert "sk-abc" not in fault.message
    assert "sk-abc" not in "".join(fault.metadata.values())


def test_the_choice_of_the_application_precedes_the_organizations() -> None:
    configured = snapshot(model("m", "one"), model("n", "one"), model("o", "one"), default_model="o")
    made = call("", default_model="m")
    made = replace(made, organization=replace(made.organization, default_model="n"))
    assert choose_model(made, configured).source is ModelSource.APPLICATION_DEFAULT
    made = replace(made, application=replace(made.application, allowed_models=("n", "o")))
    choice = choose_model(made, configured)
    assert (choice.source, [one.reason for one in choice.skipped]) == (
        ModelSource.ORGANIZATION_DEFAULT,
        [SkipReason.MODEL_NOT_ALLOWED],
    )


def test_a_message_fits_the_contract() -> None:
    long = credential(MINE, "one", name=f"{MINE}/credentials/{'x' * 300}", is_enabled=False)
    decided = plan(call(), snapshot(), replace(EVERYTHING, user=(long,)), NOW)
    assert max(len(one.message) for one in decided.skipped) <= 256
