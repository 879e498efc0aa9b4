"""What is explained is what happens: RoutingService against calls that are then made."""

from typing import Any

import grpc
import pytest
from keyswitch.router.v1 import (
    cost_pb2,
    error_reason_pb2,
    payer_pb2,
    resolution_pb2,
    routing_service_pb2,
    routing_service_pb2_grpc,
)

from tests.fakes.scripted_upstream import respond
from tests.service.router_answers import PRICE, Json, answer, whole_answer
from tests.service.router_harness import ADA, CHAT, DEMO, Caller, Refused, Stack, make_call, make_policy, running_stack


def free_pool(configuration: Json) -> None:
    """A free tier beside the other payers, and overrides."""
    configuration["deployment"]["free_models"] = ["test/other"]
    configuration["deployment_credentials"]["second"]["payers"].append("FREE")
    demo = configuration["organizations"]["demo"]
    demo["applications"]["chat"]["payers"].append("FREE")
    demo["personal_overrides_enabled"] = True
    demo["personal_overrides"] = {"ada": {"root": "test/other"}}
    demo["overrides"] = {"title": "test/other"}


def stub(caller: Caller, stack: Stack) -> Any:
    return routing_service_pb2_grpc.RoutingServiceStub(stack.channel)


async def explain(stack: Stack, caller: Caller, call: Any = None) -> Any:
    request = routing_service_pb2.ExplainRouteRequest(call=make_call() if call is None else call)
    return await caller.call(stub(caller, stack).ExplainRoute, request)


async def test_what_is_explained_is_what_happens(tmp_path: Any) -> None:
    async with running_stack(tmp_path, configuration=free_pool) as stack:
        await stack.save_key("deployment/credentials/first")
        await stack.save_key("deployment/credentials/second", provider="second")
        await stack.save_key(f"{ADA}/credentials/mine")
        for call in (
            make_call(),
            make_call(model="test/other"),
            make_call(model="test/both", route_policy=make_policy(payers=[payer_pb2.PAYER_SHARED_KEY])),
            make_call(model="test/echo", context="root"),
            make_call(model="test/echo", context="title"),
            make_call(model="free"),
        ):
            told = await explain(stack, stack.member, call)
            expected = told.candidates[0].resolution
            assert expected.attempt == 0
            upstream = {"providers/first": stack.first, "providers/second": stack.second}[expected.provider]
            upstream.script(answer())
            done = await stack.member.stream(call)
            found = next(event.response_started for event in done.events if event.HasField("response_started"))
            assert found.resolution.attempt == 1
            found.resolution.attempt = 0
            assert found.resolution == expected
            assert told.configuration_revision == stack.router.configuration.current.revision
            assert {(one.model, one.provider, one.payer, one.reason) for one in done.receipt.skipped_candidates} == {
                (one.model, one.provider, one.payer, one.reason) for one in told.skipped_candidates
            }


async def test_a_call_without_a_way_is_explained_with_every_reason(tmp_path: Any) -> None:
    async with running_stack(tmp_path) as stack:
        told = await explain(stack, stack.member)
        assert told.failure_reason == error_reason_pb2.ERROR_REASON_NO_USABLE_CREDENTIAL
        assert not told.candidates
        assert {one.payer for one in told.skipped_candidates} == {1, 2, 3, 4}
        assert all(one.message for one in told.skipped_candidates)
        empty = make_call()
        del empty.spec.messages[:]
        assert (await explain(stack, stack.member, empty)).failure_reason == told.failure_reason
        with pytest.raises(Refused) as caught:
            await explain(stack, stack.member, make_call(model="test/ecko"))
        assert caught.value.metadata["nearest"].startswith("test/echo")
        with pytest.raises(Refused) as caught:
            await explain(stack, await stack.issue("AUDITOR"))
        assert caught.value.reason == "CALLER_NOT_ALLOWED"
        eve = await stack.issue("MEMBER", parent="organizations/other", user="organizations/other/users/eve")
        with pytest.raises(Refused) as caught:
            await explain(stack, eve, make_call(application=CHAT))
        assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.NOT_FOUND, "RESOURCE_NOT_FOUND")
        assert stack.first.received == []


async def estimate(stack: Stack, caller: Caller, call: Any) -> Any:
    request = routing_service_pb2.EstimateCostRequest(call=call)
    return (await caller.call(stub(caller, stack).EstimateCost, request)).candidates


async def test_an_estimate_bounds_what_is_charged(tmp_path: Any) -> None:
    async with running_stack(tmp_path) as stack:
        await stack.save_key("deployment/credentials/first")
        await stack.add_credits(10**12)
        call = make_call(route_policy=make_policy(payers=[payer_pb2.PAYER_CREDITS]))
        call.spec.settings.max_output_tokens = 100
        (found,) = await estimate(stack, stack.member, call)
        assert found.max_output_tokens == 100
        assert found.resolution.payer == payer_pb2.PAYER_CREDITS
        price = float(PRICE["output_usd_per_million"])
        spread = found.maximum.list_price_usd_nanos - found.minimum.list_price_usd_nanos
        assert spread == 100 * price * 1000
        assert found.maximum.charged_usd_nanos == -(-found.maximum.list_price_usd_nanos * 105 // 100)
        assert found.maximum.upstream_charged_unknown_reason == cost_pb2.COST_UNKNOWN_REASON_NOT_REPORTED
        stack.first.script(respond(whole_answer(usage=(found.input_tokens, 100))))
        done = await stack.member.complete(call)
        assert done.receipt.cost.charged_usd_nanos <= found.maximum.charged_usd_nanos
        await stack.save_key(f"{ADA}/credentials/mine")
        (own,) = await estimate(stack, stack.member, make_call())
        assert own.resolution.payer == payer_pb2.PAYER_USER_KEY
        assert (own.maximum.charged_usd_nanos, own.maximum.HasField("charged_usd_nanos")) == (0, True)
        (unknown,) = await estimate(stack, stack.member, make_call(model="test/unpriced"))
        assert not unknown.maximum.HasField("list_price_usd_nanos")
        assert unknown.maximum.list_price_unknown_reason == cost_pb2.COST_UNKNOWN_REASON_NO_PRICE


async def test_a_deleted_model_behind_an_override_is_passed_over(tmp_path: Any) -> None:
    async with running_stack(tmp_path, configuration=free_pool) as stack:
        await stack.save_key("deployment/credentials/first")
        await stack.save_key("deployment/credentials/second", provider="second")

        def switch_off(configuration: Json) -> None:
            configuration["models"]["test/other"]["is_enabled"] = False

        stack.reconfigure(switch_off)
        told = await explain(stack, stack.member, make_call(context="root"))
        assert told.candidates[0].resolution.model == "test/echo"
        (skipped,) = told.skipped_choices
        assert skipped.source == resolution_pb2.MODEL_SOURCE_PERSONAL_OVERRIDE
        assert skipped.reason == resolution_pb2.SKIP_REASON_MODEL_DISABLED


def weigh(configuration: Json) -> None:
    """A third of the calls of test/both are to begin at the first provider."""
    one, two = configuration["models"]["test/both"]["endpoints"]
    one["weight"], two["weight"] = 1, 2


async def test_a_conversation_stays_where_its_weight_drew_it(tmp_path: Any) -> None:
    async with running_stack(tmp_path, configuration=weigh) as stack:
        for provider in ("first", "second"):
            await stack.save_key(f"{DEMO}/credentials/{provider}", provider=provider)
        leads: dict[str, str] = {}
        for number in range(12):
            label = f"thread-{number}"
            call = make_call(model="test/both", caller_labels={"conversation": label})
            told = [(await explain(stack, stack.member, call)).candidates[0] for _ in range(2)]
            assert told[0] == told[1]
            assert told[0].reason == routing_service_pb2.CANDIDATE_REASON_WEIGHT
            leads[label] = told[0].resolution.provider
            share = {"providers/first": "33.3%", "providers/second": "66.7%"}[leads[label]]
            assert share in told[0].message
            upstream = stack.first if leads[label] == "providers/first" else stack.second
            upstream.script(answer())
            done = await stack.member.stream(call)
            started = next(event.response_started for event in done.events if event.HasField("response_started"))
            assert started.resolution.provider == leads[label]
            assert f"{done.receipt.attempts[0].weight_share:.1%}" == share
        assert set(leads.values()) == {"providers/first", "providers/second"}
