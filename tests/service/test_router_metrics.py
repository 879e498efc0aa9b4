"""What Prometheus reads at a router: every metric of the documentation, with what calls did."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.fakes.scripted_upstream import respond
from tests.service.router_answers import Json, answer
from tests.service.router_harness import DEMO, Stack, make_call, running_stack

OPERATING = Path(__file__).resolve().parents[2] / "docs" / "operating.md"

Samples = dict[str, dict[tuple[str, ...], float]]


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with running_stack(tmp_path) as running:
        await running.save_key(f"{DEMO}/credentials/first", provider="first")
        yield running


async def scrape(stack: Stack) -> tuple[Samples, set[str]]:
    """The samples by name and labels, and the names of the metrics as the documentation writes them."""
    address = f"http://127.0.0.1:{stack.router.http_port}/metrics"
    async with aiohttp.ClientSession() as session, session.get(address) as told:
        assert (told.status, told.headers["Content-Type"].partition(";")[0]) == (200, "text/plain")
        text = await told.text()
    samples: Samples = {}
    names = set()
    for family in text_string_to_metric_families(text):
        if family.name.endswith("_created"):  # when a counter began, which this format has as a metric of its own
            continue
        names.add(f"{family.name}_total" if family.type == "counter" else family.name)
        for sample in family.samples:
            labels = tuple(value for name, value in sample.labels.items() if name != "le")
            samples.setdefault(sample.name, {})[labels] = sample.value
    return samples, names


async def test_calls_attempts_tokens_and_times_are_counted(stack: Stack) -> None:
    stack.first.script(answer(), respond(b"{}", status=401))
    assert (await stack.member.stream(make_call(model="test/echo"))).error is None
    assert (await stack.member.stream(make_call(model="test/echo"))).refused.reason == "UPSTREAM_CREDENTIAL_REJECTED"
    await stack.rest()
    found, _ = await scrape(stack)
    rejected = "UPSTREAM_CREDENTIAL_REJECTED"
    assert found["keyswitch_calls_total"] == {("", "SUCCEEDED"): 1, (rejected, "FAILED"): 1}
    assert found["keyswitch_attempts_total"] == {
        ("ORGANIZATION_KEY", "first", ""): 1,
        ("ORGANIZATION_KEY", "first", rejected): 1,
    }
    (receipt,) = [one for one in stack.receipts if one.state.value == "SUCCEEDED"]
    usage = receipt.attempts[0].usage
    assert usage is not None
    assert found["keyswitch_tokens_total"] == {
        ("input", "first"): usage.input_tokens,
        ("output", "first"): usage.output_tokens,
    }
    assert found["keyswitch_call_seconds_count"] == {("SUCCEEDED",): 1, ("FAILED",): 1}
    assert found["keyswitch_first_content_seconds_count"] == {("first",): 1}
    assert found["keyswitch_configuration_away"] == found["keyswitch_limits_away"] == {(): 0}
    assert found["keyswitch_ledger_available"] == {(): 1}


async def test_refusals_and_what_rests_are_counted(stack: Stack) -> None:
    def limit(made: Json) -> None:
        made["organizations"]["demo"]["limits"] = {"requests_per_minute": 1}

    stack.reconfigure(limit)
    stack.first.script(respond(b"{}", status=429, retry_after="60"))
    for reason in ("UPSTREAM_RATE_LIMITED", "RATE_LIMITED"):
        assert (await stack.member.stream(make_call(model="test/echo"))).refused.reason == reason
    await stack.rest()
    found, _ = await scrape(stack)
    assert found["keyswitch_rate_refusals_total"] == {("organization", "requests"): 1}
    assert list(found["keyswitch_cooldowns_total"].values()) == [1]
    assert sum(found["keyswitch_cooling_down"].values()) == 1
    assert found["keyswitch_slot_waiting"] == {(): 0}


async def test_the_documentation_lists_every_metric_and_no_other(stack: Stack) -> None:
    _, served = await scrape(stack)
    section = OPERATING.read_text().partition("| router | labels | |")[2].partition("\n\n")[0]
    listed = set(re.findall(r"^\| `(keyswitch_\w+)`", section, re.MULTILINE))
    assert listed
    assert {name for name in served if name.startswith("keyswitch_")} == listed
