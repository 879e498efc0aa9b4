"""What every HTTP client towards providers must do, against a raw server on loopback."""

import asyncio
import socket
import ssl
import struct
from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Collection, Sequence
from ipaddress import ip_network
from pathlib import Path

import pytest

from router_service.core.faults import Fault, Reason
from router_service.upstream.addresses import Listener, Resolve
from router_service.upstream.client import Upstream, UpstreamRequest, UpstreamResponse
from tests.suites.raw_server import CHUNKED_HEAD, Connection, answering, chunk, gone, make_contexts, serving, whole

LOOPBACK = (ip_network("127.0.0.0/8"),)
CANARY = "canary-5f1c"


def request_to(port: int, path: str = "/v1/x", *, host: str = "127.0.0.1", scheme: str = "http") -> UpstreamRequest:
    return UpstreamRequest("POST", f"{scheme}://{host}:{port}{path}", (("x-api-key", "k"),), b'{"a":1}', LOOPBACK)


async def resolve_to_loopback(host: str, port: int) -> Sequence[str]:
    return ["127.0.0.1"]


class UpstreamSuite:
    """Subclassed for each client."""

    @abstractmethod
    def make(
        self,
        *,
        own_listeners: Collection[Listener] = (),
        resolve: Resolve | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> Upstream:
        """A client."""

    @pytest.fixture
    async def upstream(self) -> AsyncIterator[Upstream]:
        upstream = self.make(resolve=resolve_to_loopback)
        yield upstream
        await upstream.close()

    async def send(self, upstream: Upstream, request: UpstreamRequest, seconds: float = 10.0) -> UpstreamResponse:
        return await upstream.send(request, connect_timeout_seconds=seconds, response_timeout_seconds=10.0)

    async def fault_of(self, awaitable: Awaitable[object]) -> Fault:
        with pytest.raises(Fault) as caught:
            await awaitable
        assert CANARY not in str(caught.value) + str(caught.value.metadata) + str(caught.value.fields)
        return caught.value

    async def test_a_request_arrives_as_it_was_given(self, upstream: Upstream) -> None:
        seen: list[bytes] = []

        async def serve(connection: Connection) -> None:
            seen.append(await connection.read_request())
            connection.write(whole(b"hello", headers="X-Mixed-Case: Value\r\nX-Twice: 1\r\nX-Twice: 2\r\n"))

        async with serving(serve) as server:
            response = await self.send(upstream, request_to(server.port, "/v1/a%2Fb?q=%20"))
            assert response.status == 200
            assert response.headers["x-mixed-case"] == "Value"
            assert response.headers["x-twice"] == "1"
            assert await response.read_all(100) == b"hello"
            await response.close()
        head, _, body = seen[0].partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        assert lines[0] == b"POST /v1/a%2Fb?q=%20 HTTP/1.1"
        assert body == b'{"a":1}'
        names = sorted(line.split(b":")[0].lower() for line in lines[1:])
        assert names == [b"accept-encoding", b"content-length", b"host", b"x-api-key"]
        assert f"host: 127.0.0.1:{server.port}".encode() in head.lower()
        assert b"accept-encoding: identity" in head.lower()

    async def test_a_large_body_arrives_whole(self, upstream: Upstream) -> None:
        body = bytes(range(256)) * 12_000
        sizes: list[tuple[int, bool]] = []

        async def serve(connection: Connection) -> None:
            request = await connection.read_request()
            sizes.append((len(request.partition(b"\r\n\r\n")[2]), request.endswith(body)))
            connection.write(whole(b"thanks"))

        async with serving(serve) as server:
            request = UpstreamRequest("POST", f"http://127.0.0.1:{server.port}/", (), body, LOOPBACK)
            response = await self.send(upstream, request)
            assert await response.read_all(10) == b"thanks"
            await response.close()
        assert sizes == [(len(body), True)]

    async def test_chunks_come_as_they_are_sent(self, upstream: Upstream) -> None:
        may_go_on = asyncio.Event()

        async def serve(connection: Connection) -> None:
            await connection.read_request()
            connection.write(CHUNKED_HEAD + chunk(b"one"))
            await may_go_on.wait()
            connection.write(chunk(b"two") + b"0\r\n\r\n")

        async with serving(serve) as server, asyncio.timeout(10):
            response = await self.send(upstream, request_to(server.port))
            assert response.headers["x-request-id"] == "r1"
            assert await response.read_chunk() == b"one"
            may_go_on.set()
            assert await response.read_chunk() == b"two"
            assert await response.read_chunk() == b""
            assert await response.read_chunk() == b""
            await response.close()

    async def test_an_empty_body_ends_at_once(self, upstream: Upstream) -> None:
        async with serving(answering(b"HTTP/1.1 204 No Content\r\n\r\n")) as server:
            response = await self.send(upstream, request_to(server.port))
            assert (response.status, await response.read_chunk()) == (204, b"")
            await response.close()

    async def test_a_body_without_a_length_ends_with_the_connection(self, upstream: Upstream) -> None:
        async with serving(answering(b"HTTP/1.1 200 OK\r\n\r\nabc", then_close=True)) as server:
            response = await self.send(upstream, request_to(server.port))
            assert await response.read_all(10) == b"abc"
            await response.close()

    @pytest.mark.parametrize(
        "answer",
        [
            b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc",
            CHUNKED_HEAD + chunk(b"abc"),
            CHUNKED_HEAD + b"5\r\nab",
        ],
        ids=["length", "between chunks", "inside a chunk"],
    )
    async def test_a_cut_body_is_a_violation(self, upstream: Upstream, answer: bytes) -> None:
        async with serving(answering(answer, then_close=True)) as server:
            response = await self.send(upstream, request_to(server.port, f"/v1?q={CANARY}"))
            fault = await self.fault_of(response.read_all(1000))
            await response.close()
        assert fault.reason is Reason.UPSTREAM_PROTOCOL_VIOLATION
        assert fault.metadata == {"violation": "truncated"}
        assert fault.__cause__ is not None

    async def test_a_reset_in_the_body_is_a_cut(self, upstream: Upstream) -> None:
        has_read = asyncio.Event()

        async def serve(connection: Connection) -> None:
            await connection.read_request()
            connection.write(CHUNKED_HEAD + chunk(b"abc"))
            await has_read.wait()
            connection.transport.abort()

        async with serving(serve) as server:
            response = await self.send(upstream, request_to(server.port))
            assert await response.read_chunk() == b"abc"
            has_read.set()
            fault = await self.fault_of(response.read_chunk())
            await response.close()
        assert fault.metadata == {"violation": "truncated"}

    async def test_a_silent_provider_times_out(self, upstream: Upstream) -> None:
        async with serving(answering()) as server:
            sending = upstream.send(
                request_to(server.port, f"/?q={CANARY}"), connect_timeout_seconds=10, response_timeout_seconds=0.05
            )
            fault = await self.fault_of(sending)
            await gone(server.connections[0])
        assert (fault.reason, fault.metadata) == (Reason.UPSTREAM_TIMEOUT, {"timeout": "response"})

    async def test_a_stalled_body_waits_for_the_callers_own_timeout(self, upstream: Upstream) -> None:
        async with serving(answering(CHUNKED_HEAD + chunk(b"abc"))) as server:
            response = await self.send(upstream, request_to(server.port))
            assert await response.read_chunk() == b"abc"
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await response.read_chunk()
            await response.close()
            await gone(server.connections[0])

    async def test_a_name_server_that_is_silent_is_a_connect_timeout(self) -> None:
        async def never(host: str, port: int) -> Sequence[str]:
            await asyncio.Event().wait()
            return []

        upstream = self.make(resolve=never)
        fault = await self.fault_of(self.send(upstream, request_to(80, host="provider.test"), 0.02))
        await upstream.close()
        assert (fault.reason, fault.metadata) == (Reason.UPSTREAM_TIMEOUT, {"timeout": "connect"})

    async def test_a_silent_tls_handshake_is_a_connect_timeout(self, upstream: Upstream) -> None:
        async with serving(answering()) as server:
            fault = await self.fault_of(self.send(upstream, request_to(server.port, scheme="https"), 0.05))
            await gone(server.connections[0])
        assert (fault.reason, fault.metadata) == (Reason.UPSTREAM_TIMEOUT, {"timeout": "connect"})

    async def test_a_refused_connection(self, upstream: Upstream) -> None:
        async with serving(answering()) as server:
            port = server.port
        fault = await self.fault_of(self.send(upstream, request_to(port, f"/{CANARY}?q={CANARY}")))
        assert (fault.reason, fault.metadata) == (Reason.UPSTREAM_UNAVAILABLE, {"cause": "refused"})
        assert fault.is_retryable_here
        assert fault.__cause__ is not None

    async def test_a_name_that_does_not_resolve(self) -> None:
        async def unknown(host: str, port: int) -> Sequence[str]:
            raise socket.gaierror(socket.EAI_NONAME, CANARY)

        upstream = self.make(resolve=unknown)
        fault = await self.fault_of(self.send(upstream, request_to(80, host="provider.test")))
        await upstream.close()
        assert (fault.reason, fault.metadata) == (Reason.UPSTREAM_UNAVAILABLE, {"cause": "dns"})

    @pytest.mark.parametrize("is_reset", [True, False])
    async def test_a_connection_lost_before_the_answer(self, upstream: Upstream, is_reset: bool) -> None:
        async def serve(connection: Connection) -> None:
            await connection.read_request()
            if is_reset:
                # Closing with unread bytes in the buffer makes the kernel send a reset.
                raw = connection.transport.get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.transport.abort()

        async with serving(serve) as server:
            fault = await self.fault_of(self.send(upstream, request_to(server.port)))
        assert fault.reason is Reason.UPSTREAM_UNAVAILABLE
        assert fault.metadata == {"cause": "reset" if is_reset else "disconnected"}
        assert fault.is_retryable_here

    async def test_an_answer_that_is_not_http(self, upstream: Upstream) -> None:
        async with serving(answering(CANARY.encode() + b" nothing of HTTP\r\n\r\n", then_close=True)) as server:
            fault = await self.fault_of(self.send(upstream, request_to(server.port)))
        assert (fault.reason, fault.metadata) == (Reason.UPSTREAM_PROTOCOL_VIOLATION, {"violation": "http"})

    async def test_a_compressed_answer_is_a_violation(self, upstream: Upstream) -> None:
        async with serving(answering(whole(b"x" * 20, headers="Content-Encoding: gzip\r\n"))) as server:
            fault = await self.fault_of(self.send(upstream, request_to(server.port)))
        assert fault.metadata == {"violation": "content_encoding"}

    async def test_a_redirect_is_not_followed(self, upstream: Upstream) -> None:
        async with serving(answering(whole(b"stolen"))) as other:
            location = f"Location: http://127.0.0.1:{other.port}/\r\nSet-Cookie: a=b\r\n"
            async with serving(answering(whole(b"moved", "307 Temporary Redirect", location))) as server:
                response = await self.send(upstream, request_to(server.port))
                assert (response.status, await response.read_all(10)) == (307, b"moved")
                await response.close()
            assert other.connections == []

    async def test_the_environments_proxy_is_not_used(
        self, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with serving(answering(whole(b"proxied"))) as proxy, serving(answering(whole(b"direct"))) as server:
            for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
                monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
            response = await self.send(upstream, request_to(server.port))
            assert await response.read_all(10) == b"direct"
            await response.close()
            assert proxy.connections == []

    async def test_cancelling_a_read_closes_the_connection(self, upstream: Upstream) -> None:
        async with serving(answering(CHUNKED_HEAD + chunk(b"abc"))) as server:
            is_reading = asyncio.Event()

            async def read() -> None:
                response = await self.send(upstream, request_to(server.port))
                try:
                    await response.read_chunk()
                    is_reading.set()
                    await response.read_chunk()
                finally:
                    response.abort()

            task = asyncio.create_task(read())
            await is_reading.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await gone(server.connections[0])

    async def test_cancelling_a_send_closes_the_connection(self, upstream: Upstream) -> None:
        has_request = asyncio.Event()

        async def serve(connection: Connection) -> None:
            await connection.read_request()
            has_request.set()

        async with serving(serve) as server:
            task = asyncio.create_task(self.send(upstream, request_to(server.port)))
            await has_request.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await gone(server.connections[0])

    async def test_abort_ends_a_pending_read(self, upstream: Upstream) -> None:
        async with serving(answering(CHUNKED_HEAD + chunk(b"abc"))) as server, asyncio.timeout(10):
            response = await self.send(upstream, request_to(server.port))
            assert await response.read_chunk() == b"abc"
            reading = asyncio.create_task(response.read_chunk())
            await asyncio.sleep(0)  # lets the read begin
            response.abort()
            response.abort()
            fault = await self.fault_of(reading)
            await gone(server.connections[0])
            assert (fault.reason, fault.metadata) == (Reason.UPSTREAM_UNAVAILABLE, {"cause": "aborted"})
            again = await self.fault_of(response.read_chunk())
            assert again.metadata == {"cause": "aborted"}
            await response.close()

    async def test_an_abandoned_body_closes_the_connection(self, upstream: Upstream) -> None:
        async with serving(answering(CHUNKED_HEAD + chunk(b"abc"))) as server:
            response = await self.send(upstream, request_to(server.port))
            assert await response.read_chunk() == b"abc"
            await response.close()
            await response.close()
            await gone(server.connections[0])

    async def test_a_body_that_is_too_long_is_not_read(self, upstream: Upstream) -> None:
        async with serving(answering(CHUNKED_HEAD + chunk(b"x" * 1000))) as server:
            response = await self.send(upstream, request_to(server.port))
            fault = await self.fault_of(response.read_all(999))
            await gone(server.connections[0])
        assert fault.metadata == {"violation": "too_large"}

    async def test_many_at_once_are_kept_apart(self, upstream: Upstream) -> None:
        async def serve(connection: Connection) -> None:
            while request := await connection.read_request():
                path = request.split(b" ")[1]
                connection.write(CHUNKED_HEAD + chunk(path))
                await asyncio.sleep(0)
                connection.write(chunk(path) + b"0\r\n\r\n")

        async def call(number: int) -> bytes:
            response = await self.send(upstream, request_to(server.port, f"/{number}"))
            body = await response.read_all(100)
            await response.close()
            return body

        async with serving(serve) as server:
            for _ in range(3):
                bodies = await asyncio.gather(*(call(number) for number in range(32)))
                assert bodies == [f"/{number}/{number}".encode() for number in range(32)]

    @pytest.mark.parametrize("host", ["127.0.0.1", "provider.test", "[::ffff:127.0.0.1]"])
    async def test_an_address_that_is_not_allowed_is_not_connected_to(self, upstream: Upstream, host: str) -> None:
        async with serving(answering(whole(b"inside"))) as server:
            request = UpstreamRequest("GET", f"http://{host}:{server.port}/?q={CANARY}", (), b"")
            fault = await self.fault_of(self.send(upstream, request))
            assert server.connections == []
        assert (fault.reason, fault.metadata) == (Reason.UPSTREAM_UNAVAILABLE, {"cause": "address_refused"})
        assert not fault.is_retryable_here
        assert "allowed_private_networks" in fault.message

    async def test_another_providers_allowance_does_not_open_a_kept_connection(self, upstream: Upstream) -> None:
        async with serving(answering(whole(b"inside"))) as server:
            response = await self.send(upstream, request_to(server.port))
            await response.read_all(10)
            await response.close()
            request = UpstreamRequest("GET", f"http://127.0.0.1:{server.port}/", (), b"")
            fault = await self.fault_of(self.send(upstream, request))
        assert fault.metadata == {"cause": "address_refused"}

    async def test_a_name_that_changes_its_address_is_refused(self) -> None:
        answers = iter([["203.0.113.1", "127.0.0.1"], ["169.254.169.254"]])

        async def rebinding(host: str, port: int) -> Sequence[str]:
            return next(answers)

        upstream = self.make(resolve=rebinding)
        async with serving(answering(whole(b"outside"))) as server:
            response = await self.send(upstream, request_to(server.port, host="provider.test"))
            assert await response.read_all(10) == b"outside"  # the documentation address was passed over
            await response.close()
            fault = await self.fault_of(self.send(upstream, request_to(server.port + 1, host="provider.test")))
        await upstream.close()
        assert fault.metadata == {"cause": "address_refused"}
        assert "metadata" in fault.message

    async def test_the_routers_own_listener_is_refused(self) -> None:
        async with serving(answering(whole(b"itself"))) as server:
            upstream = self.make(own_listeners={("0.0.0.0", server.port)}, resolve=resolve_to_loopback)
            fault = await self.fault_of(self.send(upstream, request_to(server.port, host="provider.test")))
            await upstream.close()
            assert server.connections == []
        assert fault.metadata == {"cause": "address_refused"}

    async def test_tls_checks_the_name_and_not_the_pinned_address(self, tmp_path: Path) -> None:
        server_context, client_context = make_contexts(tmp_path, "provider.test")
        upstream = self.make(resolve=resolve_to_loopback, ssl_context=client_context)
        seen: list[bytes] = []

        async def serve(connection: Connection) -> None:
            seen.append(await connection.read_request())
            connection.write(whole(b"secret"))

        async with serving(serve, server_context) as server:
            response = await self.send(upstream, request_to(server.port, host="provider.test", scheme="https"))
            assert await response.read_all(10) == b"secret"
            await response.close()
            fault = await self.fault_of(self.send(upstream, request_to(server.port, host="other.test", scheme="https")))
            await upstream.close()
        assert f"host: provider.test:{server.port}".encode() in seen[0].lower()
        assert (fault.reason, fault.metadata) == (Reason.UPSTREAM_UNAVAILABLE, {"cause": "tls"})

    async def test_abort_under_tls_does_not_wait(self, tmp_path: Path) -> None:
        server_context, client_context = make_contexts(tmp_path, "provider.test")
        upstream = self.make(resolve=resolve_to_loopback, ssl_context=client_context)
        async with serving(answering(CHUNKED_HEAD + chunk(b"abc")), server_context) as server:
            response = await self.send(upstream, request_to(server.port, host="provider.test", scheme="https"))
            assert await response.read_chunk() == b"abc"
            response.abort()
            await gone(server.connections[0])
            await upstream.close()
