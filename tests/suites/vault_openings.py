"""Secrets that a store over Vault opens together: each its own answer, and each named in Vault's own audit log."""

import asyncio
import base64
import uuid

import pytest

from tests.fakes.vault_server import VaultServer
from tests.suites.credential_store import Harness
from vault_service.store.store import Unsealable


class OpeningsSuite:
    """Inherited by the tests of a store that has `harness` and `vault_server`."""

    async def test_opens_what_comes_together_in_one_request(self, harness: Harness, vault_server: VaultServer) -> None:
        secrets = [f"sk-canary-{uuid.uuid4().hex}" for _ in range(6)]
        calls = [f"call-{uuid.uuid4()}" for _ in secrets]
        sealed = await self.seal_all(harness, secrets)

        async def open_one(number: int, call: str) -> tuple[bytes, tuple[str, ...]]:
            opened = await harness.store.unseal(harness.tenant, sealed[number], context=f"c{number}", request_id=call)
            return opened, tuple(harness.store.last_request_ids())

        found = await asyncio.gather(*(open_one(number, call) for number, call in enumerate(calls)))
        assert [opened for opened, _ in found] == [secret.encode() for secret in secrets]
        # Each of our calls names the request, and Vault's record of it names each of our calls.
        (number,) = {one for _, ids in found for one in ids}
        (record,) = [one for one in vault_server.audit_records(number) if one["type"] == "response"]
        assert record["request"]["headers"]["x-keyswitch-request-id"] == [",".join(calls)]
        log = vault_server.audit_log.read_text()
        for secret in secrets:
            assert secret not in log
            assert base64.b64encode(secret.encode()).decode() not in log

    @pytest.mark.parametrize("broken", [{2}, {0, 3}, {0, 1, 2, 3}])
    async def test_one_that_does_not_open_fails_alone(self, harness: Harness, broken: set[int]) -> None:
        sealed = await self.seal_all(harness, ["one", "two", "three", "four"])
        found = await asyncio.gather(
            *(
                harness.store.unseal(
                    harness.tenant, one, context=f"c{9 if number in broken else number}", request_id=f"call-{number}"
                )
                for number, one in enumerate(sealed)
            ),
            return_exceptions=True,
        )
        texts = [b"one", b"two", b"three", b"four"]
        for number, one in enumerate(found):
            if number in broken:
                assert isinstance(one, Unsealable)
                assert one.status == 400
            else:
                assert one == texts[number]

    async def test_a_caller_who_leaves_takes_nobody_along(self, harness: Harness) -> None:
        sealed = await self.seal_all(harness, ["one", "two", "three"])
        tasks = [
            asyncio.create_task(
                harness.store.unseal(harness.tenant, one, context=f"c{number}", request_id=f"call-{number}")
            )
            for number, one in enumerate(sealed)
        ]
        for _ in range(3):  # so far that they are under way
            await asyncio.sleep(0)
        tasks[1].cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(found[1], asyncio.CancelledError)
        assert [found[0], found[2]] == [b"one", b"three"]

    @staticmethod
    async def seal_all(harness: Harness, secrets: list[str]) -> list[bytes]:
        return [
            await harness.store.seal(harness.tenant, secret.encode(), context=f"c{number}")
            for number, secret in enumerate(secrets)
        ]
