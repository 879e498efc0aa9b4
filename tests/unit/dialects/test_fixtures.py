"""Our own cases: each request becomes its wire body, each body its answer or fault, wherever it is cut."""

import json

import pytest

from router_service.dialects.registry import DIALECTS
from tests.suites.dialect_fixtures import Fixture, completion_of, fixtures, outcome_json
from tests.suites.dialect_suite import QUIRKS, check_cuts, run

CASES = [pytest.param(name, case, id=f"{name}-{case.name}") for name in DIALECTS for case in fixtures(name)]


@pytest.mark.parametrize(("name", "case"), CASES)
def test_the_request_is_written_as_it_should_be(name: str, case: Fixture) -> None:
    encoded = DIALECTS[name].encode(completion_of(case.request["completion"], name), QUIRKS)
    assert json.loads(encoded.body) == case.request["wire"]
    warnings = [[notice.field, notice.reason.value] for notice in encoded.warnings]
    assert warnings == case.request.get("warnings", [])


@pytest.mark.parametrize(("name", "case"), CASES)
def test_the_answer_is_read_as_it_should_be(name: str, case: Fixture) -> None:
    outcome = run(DIALECTS[name], case.body)
    assert outcome_json(outcome) == case.expected
    if case.is_stream:
        check_cuts(DIALECTS[name], case.body, outcome)


@pytest.mark.parametrize("name", DIALECTS)
def test_every_dialect_has_cases(name: str) -> None:
    assert len(fixtures(name)) >= 8
