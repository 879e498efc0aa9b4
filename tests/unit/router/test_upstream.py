"""Both HTTP clients through the suite, and what only one of them does."""

import ssl
from collections.abc import Collection

import httpx
import pytest

from router_service.core.faults import Fault, Reason
from router_service.upstream.addresses import Listener, Resolve, resolve_with_system
from router_service.upstream.aiohttp_client import AiohttpUpstream
from router_service.upstream.client import Upstream, UpstreamRequest
from router_service.upstream.httpx_client import HttpxUpstream
from tests.suites.raw_server import answering, serving, whole
from tests.suites.upstream_suite import UpstreamSuite, request_to


class TestAiohttp(UpstreamSuite):
    def make(
        self,
        *,
        own_listeners: Collection[Listener] = (),
        resolve: Resolve | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> Upstream:
        return AiohttpUpstream(
            own_listeners=own_listeners, resolve=resolve or resolve_with_system, ssl_context=ssl_context
        )

    async def test_a_read_body_leaves_its_connection_for_reuse(self, upstream: Upstream) -> None:
        async with serving(answering(whole(b"again"))) as server:
            for _ in range(3):
                response = await self.send(upstream, request_to(server.port))
                assert await response.read_all(10) == b"again"
                await response.close()
            assert len(server.connections) == 1


class TestHttpx(UpstreamSuite):
    def make(
        self,
        *,
        own_listeners: Collection[Listener] = (),
        resolve: Resolve | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> Upstream:
        return HttpxUpstream(
            own_listeners=own_listeners, resolve=resolve or resolve_with_system, ssl_context=ssl_context
        )

    async def test_any_transport_serves(self) -> None:
        async def answer(host: str, port: int) -> list[str]:
            return ["93.184.216.34"]

        def handle(request: httpx.Request) -> httpx.Response:
            assert request.url.host == "93.184.216.34"
            assert request.headers["host"] == "provider.test"
            assert request.extensions["sni_hostname"] == "provider.test"
            return httpx.Response(401, json={"error": "no"}, headers={"X-Request-Id": "r"})

        upstream = HttpxUpstream(resolve=answer, transport=httpx.MockTransport(handle))
        response = await self.send(upstream, UpstreamRequest("GET", "https://provider.test/v1/models", (), b""))
        assert (response.status, response.headers["x-request-id"]) == (401, "r")
        assert await response.read_all(100) == b'{"error":"no"}'
        await response.close()
        await upstream.close()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-key", "a\r\nx-evil: 1"),
        ("x-key", "a\nb"),
        ("x-key", "a\x00b"),
        ("x-key", "a\x7fb"),
        ("x-key", "schlüssel"),
        ("x key", "a"),
        ("x-key\r\nx-evil", "a"),
        ("x-key:", "a"),
        ("", "a"),
        ("Host", "metadata.internal"),
        ("content-length", "3"),
        ("Transfer-Encoding", "chunked"),
    ],
)
def test_a_header_that_could_inject_is_refused(name: str, value: str) -> None:
    with pytest.raises(Fault) as caught:
        UpstreamRequest("POST", "https://provider.test/", ((name, value),), b"")
    assert caught.value.reason is Reason.INVALID_REQUEST
    assert caught.value.metadata == {"field": "headers"}
    if name == "x-key":
        assert value not in str(caught.value)


def test_a_request_does_not_print_its_key() -> None:
    request = UpstreamRequest("POST", "https://provider.test/", (("authorization", "Bearer sk-canary"),), b"sk-canary")
    assert "canary" not in repr(request)
