"""The conformance program of this client: one case as JSON on stdin, its result as JSON on stdout.

`python -m keyswitch_client.conformance async` runs it with AsyncClient, and `sync` with Client. The form of both
documents is in clients/README.md.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from typing import Any, TextIO

import grpc
from google.protobuf import json_format
from keyswitch.router.v1 import completion_pb2, completion_service_pb2

from keyswitch_client.asynchronous import AsyncClient
from keyswitch_client.errors import KeyswitchError
from keyswitch_client.synchronous import Client

Json = dict[str, Any]


def run_sync(job: Mapping[str, Any]) -> Json:
    """Runs a case with Client."""
    call, cancel_after = _case(job)
    event_count = 0
    with Client(job["target"], job["token"], ca_path=job["ca_path"]) as client:
        stream = client.stream(call)
        try:
            with stream:
                for _ in stream:
                    event_count += 1
                    if event_count == cancel_after:
                        stream.cancel()
                folded = stream.fold()
            return _answered(event_count, folded, client.complete(call))
        except KeyswitchError as error:
            return _failed(error, event_count, stream.response_id)


async def run_async(job: Mapping[str, Any]) -> Json:
    """Runs a case with AsyncClient."""
    call, cancel_after = _case(job)
    event_count = 0
    async with AsyncClient(job["target"], job["token"], ca_path=job["ca_path"]) as client:
        stream = client.stream(call)
        try:
            async with stream:
                async for _ in stream:
                    event_count += 1
                    if event_count == cancel_after:
                        stream.cancel()
                folded = await stream.fold()
            return _answered(event_count, folded, await client.complete(call))
        except KeyswitchError as error:
            return _failed(error, event_count, stream.response_id)


def _case(job: Mapping[str, Any]) -> tuple[completion_pb2.CompletionCall, int]:
    case = job["case"]
    call = json_format.ParseDict(case["call"], completion_pb2.CompletionCall())
    return call, case.get("cancel_after_events", 0)


def _answered(
    event_count: int, folded: completion_service_pb2.CompleteResponse, unary: completion_service_pb2.CompleteResponse
) -> Json:
    return {
        "outcome": "answered",
        "event_count": event_count,
        "folded": json_format.MessageToDict(folded),
        "unary": json_format.MessageToDict(unary),
    }


def _failed(error: KeyswitchError, event_count: int, response_id: str) -> Json:
    return {
        "outcome": "cancelled" if error.code is grpc.StatusCode.CANCELLED and not error.reason else "failed",
        "event_count": event_count,
        "response_id": response_id or error.response_id,
        "code": error.code.name,
        "reason": error.reason,
        "domain": error.domain,
        "metadata": dict(error.metadata),
        "field_violations": [violation.field for violation in error.field_violations],
        "receipt": json_format.MessageToDict(error.receipt) if error.receipt else None,
    }


def main(arguments: list[str], source: TextIO, sink: TextIO) -> None:
    """Reads the case, runs it and writes the result."""
    job = json.load(source)
    result = run_sync(job) if arguments == ["sync"] else asyncio.run(run_async(job))
    json.dump(result, sink)
    sink.write("\n")


if __name__ == "__main__":
    main(sys.argv[1:], sys.stdin, sys.stdout)
