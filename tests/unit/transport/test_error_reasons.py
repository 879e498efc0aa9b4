"""Every reason of the contract has its comment, its law and a test that shows how it comes about."""

import ast
import json
import re
from pathlib import Path

import pytest
from keyswitch.router.v1 import error_reason_pb2

from router_service.core.faults import LAWS, Reason
from router_service.transport.status import DOMAIN

ROOT = Path(__file__).resolve().parents[3]
PROTO = ROOT / "protos/keyswitch/router/v1/error_reason.proto"
PREFIX = "ERROR_REASON_"

BAD_INPUT = "tests/service/test_router_bad_input.py"
BUDGETS = "tests/service/test_router_budgets.py"
FAILURES = "tests/service/test_router_failures.py"
KEYS = "tests/service/test_router_keys.py"
LIMITS = "tests/service/test_router_limits.py"
CONFIGURATION = "tests/service/test_router_configuration.py"
IDENTITY = "tests/service/test_identity_issuers.py"
STRANGERS = "tests/security/test_strangers.py"
ENDINGS = "tests/service/test_router_endings.py"

SHOWN_BY = {
    "INVALID_REQUEST": (BAD_INPUT, "test_a_wrong_field_is_named_and_costs_nothing"),
    "CALLER_UNKNOWN": (BAD_INPUT, "test_a_wrong_token_is_unknown"),
    "CALLER_NOT_ALLOWED": (BAD_INPUT, "test_what_a_token_leaves_out_is_refused"),
    "MODEL_NOT_FOUND": (BAD_INPUT, "test_an_unknown_model_is_told_its_neighbours"),
    "MODEL_NOT_ALLOWED": (BAD_INPUT, "test_a_model_of_others_is_refused"),
    "MODEL_NOT_ALLOWED_WITH_OWN_KEY": (KEYS, "test_an_own_key_serves_only_the_native_provider_until_it_is_deleted"),
    "NO_USABLE_CREDENTIAL": (KEYS, "test_a_deleted_key_passes_the_next_call_to_the_next_payer"),
    "BYOK_DISABLED": (KEYS, "test_own_keys_that_are_switched_off_are_ignored"),
    "PRICE_UNKNOWN": (BAD_INPUT, "test_a_model_without_a_price_is_not_sold"),
    "BUDGET_EXHAUSTED": (BUDGETS, "test_a_budget_of_list_prices_bounds_own_keys_too"),
    "CREDIT_EXHAUSTED": (BAD_INPUT, "test_credits_that_are_used_up_say_whose"),
    "RATE_LIMITED": (LIMITS, "test_a_rate_of_requests_refuses_and_says_when"),
    "CONCURRENCY_LIMITED": (LIMITS, "test_without_another_candidate_it_waits_until_the_deadline"),
    "AUTHENTICATION_LIMITED": (STRANGERS, "test_a_flood_at_the_router_is_told_to_wait_and_shuts_nobody_out"),
    "ISSUER_UNAVAILABLE": (IDENTITY, "test_an_issuer_that_is_away_is_not_the_callers_fault"),
    "LIMITS_UNAVAILABLE": (LIMITS, "test_a_store_that_is_away_refuses_only_what_is_limited"),
    "REQUEST_ID_REUSED": (ENDINGS, "test_a_request_id_of_an_answered_call_is_refused_with_its_receipt"),
    "UPSTREAM_REJECTED_REQUEST": (FAILURES, "test_a_fault_of_the_request_is_not_tried_elsewhere"),
    "CONTEXT_TOO_LONG": (FAILURES, "test_a_prompt_that_is_too_long_goes_only_where_a_route_says_so"),
    "UPSTREAM_CREDENTIAL_REJECTED": (KEYS, "test_a_rejected_key_that_was_not_rotated_is_the_callers_to_mend"),
    "PLAN_MISMATCH": (KEYS, "test_a_key_of_another_plan_is_said_to_be_one"),
    "UPSTREAM_BALANCE_EXHAUSTED": (FAILURES, "test_a_failure_before_the_first_content_is_unseen"),
    "UPSTREAM_RATE_LIMITED": (FAILURES, "test_throttling_tells_the_caller_when_to_come_back"),
    "UPSTREAM_MODEL_MISSING": (FAILURES, "test_a_failure_before_the_first_content_is_unseen"),
    "UPSTREAM_UNAVAILABLE": (FAILURES, "test_attempts_are_counted_over_all_candidates"),
    "UPSTREAM_TIMEOUT": (FAILURES, "test_a_late_first_content_is_a_time_out"),
    "UPSTREAM_PROTOCOL_VIOLATION": (FAILURES, "test_a_cut_at_any_byte_is_never_an_end"),
    "CREDENTIALS_UNAVAILABLE": (KEYS, "test_the_credential_service_gone_is_not_about_the_caller"),
    "LEDGER_UNAVAILABLE": (BAD_INPUT, "test_a_ledger_that_is_away_is_said_so"),
    "INTERNAL": (ENDINGS, "test_a_fault_of_our_own_is_a_failure_with_an_incident"),
    "CREDENTIAL_REVOKED": (KEYS, "test_a_revocation_that_kills_cuts_the_stream"),
    "RESOURCE_EXISTS": (CONFIGURATION, "test_an_application_from_its_making_to_its_end"),
    "ETAG_MISMATCH": (CONFIGURATION, "test_an_application_from_its_making_to_its_end"),
    "RESOURCE_FIXED": (CONFIGURATION, "test_a_binding_counts_for_the_very_next_call"),
    "CONFIGURATION_UNAVAILABLE": (CONFIGURATION, "test_a_store_that_is_away_is_said_so_and_serves_on"),
    "RESOURCE_NOT_FOUND": (BAD_INPUT, "test_resources_of_others_do_not_exist"),
}

NAMES = [name.removeprefix(PREFIX) for name, number in error_reason_pb2.ErrorReason.items() if number]


def read_comments() -> dict[str, str]:
    """The comment above each value, without its marks."""
    comments: dict[str, str] = {}
    lines: list[str] = []
    for line in PROTO.read_text().splitlines():
        stripped = line.strip()
        if stripped.startswith("//"):
            lines.append(stripped.removeprefix("//"))
            continue
        value = re.fullmatch(rf"{PREFIX}(\w+) = \d+;", stripped)
        if value:
            comments[value[1]] = "\n".join(lines)
        lines = []
    return comments


COMMENTS = read_comments()


def test_the_enum_the_laws_and_the_tests_name_the_same_reasons() -> None:
    assert set(NAMES) == {reason.value for reason in Reason} == {reason.value for reason in LAWS} == set(SHOWN_BY)


@pytest.mark.parametrize("name", NAMES)
def test_the_comment_has_an_example(name: str) -> None:
    comment = COMMENTS[name]
    example = json.loads(comment[comment.index("{") :])
    assert example["reason"] == PREFIX + name
    assert example["domain"] == DOMAIN
    assert all(isinstance(value, str) for value in example["metadata"].values())
    assert all(re.fullmatch(r"[a-z][a-zA-Z0-9]*", key) for key in example["metadata"])


@pytest.mark.parametrize("name", NAMES)
def test_the_comment_names_the_status_of_the_law(name: str) -> None:
    words = " ".join(COMMENTS[name].split())
    named = re.search(r"Status ([A-Z_]+)", words)
    assert named is not None
    assert named[1] == LAWS[Reason(name)].code.name


@pytest.mark.parametrize("name", NAMES)
def test_a_test_shows_it(name: str) -> None:
    path, function = SHOWN_BY[name]
    tree = ast.parse((ROOT / path).read_text())
    found = [
        node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == function
    ]
    assert len(found) == 1, f"{path} has no {function}"
    assert any(isinstance(node, ast.Assert) for node in ast.walk(found[0]))
    assert f'"{name}"' in (ROOT / path).read_text()
