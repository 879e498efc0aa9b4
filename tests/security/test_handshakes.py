"""Many who connect at once, while certificates change, end neither service (promises 16 and 18)."""

import asyncio
import contextlib
import ssl
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from deploy.local.stack import Ports, Stack
from router_service.transport import handshakes as router_handshakes
from tests.fakes.free_ports import free_ports
from tests.security.promises import count, tried
from tests.service.vault_harness import make_home, renew_leaves
from vault_service.transport import handshakes as vault_handshakes

AT_ONCE = 32


async def shake_hands(port: int, context: ssl.SSLContext) -> bool:
    """Connects and leaves. At the lease listener the one without a certificate is turned away after its handshake."""
    with contextlib.suppress(OSError):
        _, writer = await asyncio.open_connection("localhost", port, ssl=context)
        writer.close()
        return True
    return False


@pytest.mark.timeout(count(300, 1500))
async def test_many_who_connect_at_once_end_neither_service(tmp_path: Path) -> None:
    """gRPC frees a TLS context while another thread takes it, where it is given one for each handshake."""
    rounds, each = count(2, 40), count(20, 150)
    stack = Stack(tmp_path, Ports(*free_ports(6)))
    shaken: Counter[str] = Counter()
    try:
        await stack.start()
        listeners = {"router": stack.ports.router, "management": stack.ports.management, "lease": stack.ports.lease}

        async def crowd(name: str) -> None:
            context = ssl.create_default_context(cafile=stack.ca_path)
            context.set_alpn_protocols(["h2"])
            for _ in range(each):
                done = await asyncio.gather(*(shake_hands(listeners[name], context) for _ in range(AT_ONCE // 4)))
                shaken[name] += sum(done)
                stack.check_alive()

        for _ in range(rounds):
            crowds = [asyncio.create_task(crowd(name)) for name in listeners]
            await asyncio.to_thread(renew_leaves, tmp_path)
            await asyncio.gather(*crowds)
        for name, target in (("router", stack.router_target), ("vault", stack.vault_target)):
            await stack.wait_until_serving(name, target)
    finally:
        await stack.stop()
    assert all(shaken[name] > each for name in listeners), shaken
    tried(
        16,
        "connections at once to both services while certificates change; both go on",
        handshakes=shaken.total(),
        changes=rounds,
        ended=0,
    )


@pytest.mark.parametrize("handshakes", [router_handshakes, vault_handshakes], ids=["router", "vault"])
def test_grpc_is_given_certificates_only_when_they_change(handshakes: Any, tmp_path: Path) -> None:
    home, pauses = make_home(tmp_path), list[float]()

    def read() -> Any:
        return handshakes.Shown((home / "vault.pem").read_bytes(), (home / "vault-key.pem").read_bytes())

    changes = handshakes.Changes(read, pauses.append)
    assert [changes.fetch() for _ in range(3)] == [None] * 3
    renew_leaves(home)
    assert changes.fetch() is not None
    assert len(pauses) == 1, "handshakes that were told of no change take their context meanwhile"
    assert changes.fetch() is None
