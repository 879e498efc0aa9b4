"""The commands that say what a call would do, against scripted services."""

import json

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from keyswitch.router.v1 import (
    cost_pb2,
    error_reason_pb2,
    payer_pb2,
    provider_service_pb2,
    resolution_pb2,
    routing_service_pb2,
)

from tests.unit.clients.cli_terminal import Terminal

RESOLUTION = resolution_pb2.Resolution(
    model="anthropic/claude-sonnet-4.6",
    model_source=resolution_pb2.MODEL_SOURCE_APPLICATION_DEFAULT,
    provider="providers/anthropic",
    payer=payer_pb2.PAYER_ORGANIZATION_KEY,
    credential_version="organizations/demo/credentials/main/versions/2",
)
SKIPPED = resolution_pb2.SkippedCandidate(
    model="anthropic/claude-sonnet-4.6",
    provider="providers/anthropic",
    payer=payer_pb2.PAYER_CREDITS,
    reason=resolution_pb2.SKIP_REASON_EARLIER_PAYER,
    message="ORGANIZATION_KEY comes first and has a key.",
)


def test_explain(terminal: Terminal) -> None:
    terminal.services.answers["ExplainRoute"] = routing_service_pb2.ExplainRouteResponse(
        candidates=[
            routing_service_pb2.RouteCandidate(
                resolution=RESOLUTION, reason=routing_service_pb2.CANDIDATE_REASON_CATALOG_ORDER
            )
        ],
        skipped_candidates=[SKIPPED],
        skipped_choices=[
            resolution_pb2.SkippedModelChoice(
                source=resolution_pb2.MODEL_SOURCE_PERSONAL_OVERRIDE,
                model="gone/model",
                reason=resolution_pb2.SKIP_REASON_MODEL_NOT_FOUND,
            )
        ],
    )
    done = terminal.run(
        "explain", "sonnet", "-a", "claude", "--context", "title", "--payer", "credits", "--for", "bob"
    )  # fmt: skip
    call = terminal.services.asked("ExplainRoute").call
    assert (call.spec.model, call.application) == ("sonnet", "organizations/demo/applications/claude")
    assert (call.context, call.on_behalf_of_user) == ("title", "organizations/demo/users/bob")
    assert list(call.route_policy.payers) == [payer_pb2.PAYER_CREDITS]
    assert not call.request_id
    for text in ("ORGANIZATION_KEY", "application default", "catalog order", " main "):
        assert text in done.stdout
    assert "earlier payer" in done.stdout
    assert "passed over: gone/model (personal override): model not found" in done.stdout


def test_a_call_that_would_fail(terminal: Terminal) -> None:
    terminal.services.answers["ExplainRoute"] = routing_service_pb2.ExplainRouteResponse(
        failure_reason=error_reason_pb2.ERROR_REASON_NO_USABLE_CREDENTIAL, skipped_candidates=[SKIPPED]
    )
    done = terminal.run("explain")
    assert "The call would fail: no usable credential" in done.stderr
    assert SKIPPED.message in done.stdout


def test_estimate(terminal: Terminal) -> None:
    terminal.services.answers["EstimateCost"] = routing_service_pb2.EstimateCostResponse(
        candidates=[
            routing_service_pb2.CandidateCost(
                resolution=RESOLUTION,
                input_tokens=12,
                max_output_tokens=4096,
                minimum=cost_pb2.Cost(list_price_usd_nanos=1000),
                maximum=cost_pb2.Cost(list_price_usd_nanos=2_000_000, charged_usd_nanos=0),
            )
        ]
    )
    done = terminal.run("estimate", "Hi", "-m", "sonnet", "--max-output-tokens", "4096")
    assert terminal.services.asked("EstimateCost").call.spec.settings.max_output_tokens == 4096
    assert "4,096" in done.stdout
    assert "$0.000001 to $0.002" in done.stdout


def test_rests(terminal: Terminal) -> None:
    terminal.services.answers["ListRests"] = routing_service_pb2.ListRestsResponse(
        rests=[
            routing_service_pb2.Rest(
                credential="organizations/demo/credentials/main/versions/2",
                cause=routing_service_pb2.REST_CAUSE_BALANCE,
                end_time=Timestamp(seconds=1_790_000_000),
            ),
            routing_service_pb2.Rest(
                credential="organizations/demo/credentials/main",
                provider="providers/anthropic",
                upstream_model_id="claude-x",
                cause=routing_service_pb2.REST_CAUSE_BREAKER,
                is_tried=True,
            ),
        ]
    )
    result = terminal.run("rests")
    assert result.exit_code == 0
    for words in ("all models", "balance", "anthropic with", "claude-x", "breaker", "one call tries it now"):
        assert words in result.stdout
    assert terminal.services.asked("ListRests").parent == "organizations/demo"


def test_a_probe_says_what_came_of_it(terminal: Terminal) -> None:
    terminal.services.answers["ProbeProvider"] = provider_service_pb2.ProbeProviderResponse(
        is_reachable=True, http_status=401, duration=Duration(nanos=120_000_000), ended_rest_count=2
    )
    result = terminal.run("probe", "anthropic")
    assert result.exit_code == 0
    assert "anthropic answers (status 401, 0.12 s). 2 endpoints may be tried again." in result.stderr
    assert terminal.services.asked("ProbeProvider").name == "providers/anthropic"
    terminal.services.answers["ProbeProvider"] = provider_service_pb2.ProbeProviderResponse()
    failed = terminal.run("probe", "organizations/demo/providers/lab")
    assert failed.exit_code == 1
    assert "did not answer" in failed.stderr


def test_a_list_of_several_pages_is_shown_whole(terminal: Terminal) -> None:
    def answer(request: routing_service_pb2.ListRestsRequest) -> routing_service_pb2.ListRestsResponse:
        rest = routing_service_pb2.Rest(credential=f"c{request.page_token or '1'}")
        return routing_service_pb2.ListRestsResponse(
            rests=[rest], next_page_token={"": "2", "2": "3", "3": ""}[request.page_token]
        )

    terminal.services.answers["ListRests"] = answer
    shown = json.loads(terminal.run("rests", "--json").stdout)
    assert shown == {"rests": [{"credential": "c1"}, {"credential": "c2"}, {"credential": "c3"}]}
    assert {request.page_size for _, request in terminal.services.requests} == {1000}
