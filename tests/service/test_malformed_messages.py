"""Bytes that are no message of a method: a typed error of either service, and nothing of an exception's text."""

from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from tests.service.router_harness import running_stack


@pytest.mark.parametrize("sent", [b"\xff\xff\xff", b"\x0a\x7f"], ids=["no tag", "cut"])
async def test_a_malformed_message_is_the_callers_fault(tmp_path: Path, sent: bytes) -> None:
    async with running_stack(tmp_path) as stack:
        authority = grpc.ssl_channel_credentials((stack.home / "ca.pem").read_bytes())
        management = f"localhost:{stack.vault.service.management_port}"
        async with grpc.aio.secure_channel(management, authority) as vault:
            for channel, method in (
                (stack.channel, "/keyswitch.router.v1.CompletionService/Complete"),
                (vault, "/keyswitch.vault.v1.CredentialService/GetCredential"),
            ):
                call = channel.unary_unary(method, request_serializer=bytes, response_deserializer=bytes)
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call(sent, metadata=stack.member.metadata, timeout=20)
                assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
                assert "DecodeError" not in (caught.value.details() or "")
                status = rpc_status.from_call(caught.value)  # type: ignore[arg-type] # takes anything with trailing metadata
                assert status is not None
                info = error_details_pb2.ErrorInfo()
                assert any(detail.Unpack(info) for detail in status.details)
                assert info.reason == "ERROR_REASON_INVALID_REQUEST"
