"""Certificates change under calls: none fails, and the old ones are used no more."""

import asyncio
import hashlib
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from keyswitch.vault.v1 import audit_pb2, audit_service_pb2

from tests.security.promises import count, tried
from tests.service.router_answers import answer
from tests.service.router_harness import DEMO, Stack, running_stack
from tests.service.vault_harness import renew_leaves

MAIN = f"{DEMO}/credentials/main"
CALLERS = 4


async def lease_certificates(stack: Stack) -> list[bytes]:
    """The hashes of the certificates with which leases were got, the newest first."""
    client = stack.vault.operator
    request = audit_service_pb2.ListAuditRecordsRequest(parent="chains/-", page_size=1000)
    found = (await client.call(client.audit.ListAuditRecords, request)).audit_records
    return [one.identity.certificate_hash for one in found if one.action == audit_pb2.AUDIT_ACTION_LEASE]


def certificate_hash(home: Path) -> bytes:
    """The hash of the router's certificate as it is in the file."""
    certificate = x509.load_pem_x509_certificate((home / "router.pem").read_bytes())
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).digest()


async def shown_to_callers(stack: Stack) -> bytes:
    """The hash of the certificate that the router shows to a new caller."""
    context = ssl.create_default_context(cafile=stack.home / "ca.pem")
    context.set_alpn_protocols(["h2"])
    _, writer = await asyncio.open_connection("localhost", stack.router.port, ssl=context)
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return hashlib.sha256(shown).digest()


async def test_both_services_change_their_certificates_under_calls(tmp_path: Path) -> None:
    rounds, is_over, calls = count(3, 30), asyncio.Event(), 0
    async with running_stack(tmp_path) as stack:
        await stack.save_key(MAIN)
        stack.first.script(*[answer()] * 100_000)

        async def keep_calling() -> None:
            nonlocal calls
            while not is_over.is_set():
                stack.end_leases()  # each call gets a lease of its own
                found = await stack.member.stream()
                assert (found.text, found.error) == ("Hello world", None)
                calls += 1

        callers = [asyncio.create_task(keep_calling()) for _ in range(CALLERS)]
        for _ in range(rounds):
            renew_leaves(tmp_path)
            assert await stack.router.renew_certificate()
            begun = calls
            while calls < begun + CALLERS and not any(caller.done() for caller in callers):
                await asyncio.sleep(0)
        is_over.set()
        await asyncio.gather(*callers)
        stack.end_leases()
        await stack.member.stream()
        assert (await lease_certificates(stack))[0] == certificate_hash(tmp_path)
        assert await shown_to_callers(stack) == certificate_hash(tmp_path)
    tried(16, "certificates of both services changed under calls", changes=rounds, calls=calls, failed=0)


async def test_a_certificate_that_does_not_do_leaves_the_old_one(tmp_path: Path) -> None:
    async with running_stack(tmp_path) as stack:
        await stack.save_key(MAIN)
        stack.first.script(*[answer()] * 2)
        good = certificate_hash(tmp_path)
        key = (tmp_path / "router-key.pem").read_bytes()
        chain = (tmp_path / "router.pem").read_bytes()
        (tmp_path / "router-key.pem").write_bytes((tmp_path / "vault-key.pem").read_bytes())
        assert not await stack.router.renew_certificate(), "the key is another certificate's"
        (tmp_path / "router.pem").write_bytes((tmp_path / "vault.pem").read_bytes())
        assert not await stack.router.renew_certificate(), "the name is not on the list of those who may lease"
        (tmp_path / "router-key.pem").write_bytes(key)
        (tmp_path / "router.pem").write_bytes(chain)
        assert not await stack.router.renew_certificate(), "nothing has changed"
        assert (await stack.member.stream()).text == "Hello world"
        assert (await lease_certificates(stack))[0] == good
