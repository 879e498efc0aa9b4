"""One set of cases for the clients of every language, and the runner that holds their answers against it.

A client is a program: the case goes in as JSON on stdin, the result comes out as JSON on stdout. The runner asks the
service itself what became of a cancelled call, because a client cannot know.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

CASES = Path(__file__).parents[1] / "fixtures" / "conformance"
GO_CLIENT = Path(__file__).parents[2] / "clients" / "go"
PROGRAM_TIMEOUT_SECONDS = 30.0

Json = dict[str, Any]
ReceiptStateOf = Callable[[str], Awaitable[str]]


@dataclass(frozen=True)
class Service:
    """Where a program finds the router, and what it proves itself with."""

    target: str
    ca_path: Path
    token: str


def load_cases() -> Sequence[Json]:
    """Every case of the set, by name."""
    yaml = YAML(typ="safe", pure=True)
    return [yaml.load(path) for path in sorted(CASES.glob("*.yaml"))]


def python_program(mode: str) -> Sequence[str]:
    """The Python client, "sync" or "async"."""
    return (sys.executable, "-m", "keyswitch_client.conformance", mode)


def build_go_program(folder: Path) -> Sequence[str]:
    """The Go client, compiled into a folder."""
    binary = folder / "conformance"
    subprocess.run(("go", "build", "-o", str(binary), "./cmd/conformance"), cwd=GO_CLIENT, check=True, timeout=300)
    return (str(binary),)


async def check_case(program: Sequence[str], service: Service, case: Json, receipt_state_of: ReceiptStateOf) -> None:
    """Runs one case with one program and fails with what differs."""
    job = {
        "target": service.target,
        "ca_path": str(service.ca_path),
        "token": service.token,
        "case": {key: case[key] for key in ("name", "call", "cancel_after_events") if key in case},
    }
    result = json.loads(await _run(program, json.dumps(job).encode(), timeout_seconds=PROGRAM_TIMEOUT_SECONDS))
    expect = case["expect"]
    assert result["outcome"] == expect["outcome"], result
    assert result["event_count"] >= expect.get("event_count_at_least", 0)
    match expect["outcome"]:
        case "answered":
            _check_answers(result, expect)
        case "failed":
            _check_failure(result, expect)
        case "cancelled":
            assert result["response_id"], "a cancelled stream that had started knows its response id"
            assert await receipt_state_of(result["response_id"]) == expect["receipt_state"]
        case other:
            raise AssertionError(f"no such outcome in a case: {other}")


def _check_answers(result: Mapping[str, Any], expect: Mapping[str, Any]) -> None:
    assert _without_ids(result["folded"]["message"]) == _without_ids(result["unary"]["message"])
    for answer in (result["folded"], result["unary"]):
        message = _without_ids(answer["message"])
        for part in message["parts"]:
            part.pop("providerState", None)  # opaque, and not every provider has any
        assert message == expect["message"]
        assert answer["finishReason"] == expect["finish_reason"]
        assert answer["resolution"]["model"] == expect["model"]
        assert answer["responseId"]
        assert answer["receipt"]["state"] == "RECEIPT_STATE_SUCCEEDED"
        assert len(answer["receipt"]["attempts"]) == 1


def _check_failure(result: Mapping[str, Any], expect: Mapping[str, Any]) -> None:
    for key in ("code", "reason", "domain"):
        assert result[key] == expect[key], result
    for key in expect["metadata_keys"]:
        assert result["metadata"][key]
    failures = [attempt["failureReason"] for attempt in result["receipt"]["attempts"]]
    assert failures == expect["attempt_failures"]
    assert result["response_id"] == result["receipt"]["responseId"]


def _without_ids(message: Mapping[str, Any]) -> Json:
    """The message without its tool calls' ids, which must be there and differ."""
    copy: Json = json.loads(json.dumps(message))
    ids = [part["toolCall"].pop("id") for part in copy["parts"] if "toolCall" in part]
    assert len(set(ids)) == len(ids)
    assert all(ids)
    return copy


async def _run(command: Sequence[str], given: bytes, *, timeout_seconds: float) -> bytes:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    try:
        async with asyncio.timeout(timeout_seconds):
            output, errors = await process.communicate(given)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise AssertionError(f"{command[0]} did not end within {timeout_seconds} s") from None
    assert process.returncode == 0, errors.decode(errors="replace")
    return output
