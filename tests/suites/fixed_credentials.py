"""What holds for credentials that the environment of the service fixes, whatever store keeps them."""

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from keyswitch.vault.v1 import audit_pb2, audit_service_pb2, credential_pb2
from keyswitch.vault.v1 import credential_service_pb2 as pb

from tests.service.vault_harness import ACME, ADA, Client, Vault, refused, running_vault
from vault_service.config import load_config
from vault_service.core.fixed import FixedCredential
from vault_service.prerequisites import CannotStart
from vault_service.store.store import Store

KEY = "sk-CANARY-0123456789abcdefghijklmnop-9f3c"
OTHER_KEY = "sk-CANARY-0123456789abcdefghijklmnop-7a11"
ORIGIN = "https://api.openai.com"
NAME = "deployment/credentials/fixed"
OpenStore = Callable[[], Awaitable[Store]]


def variables(credential_id: str, key: str = KEY, origin: str = ORIGIN) -> dict[str, str]:
    stem = f"KEYSWITCH_VAULT_FIXED_{credential_id.upper().replace('-', '_')}"
    return {
        "KEYSWITCH_VAULT_FIXED_CREDENTIALS": credential_id,
        f"{stem}_PROVIDER": "openai",
        f"{stem}_ORIGINS": origin,
        f"{stem}_KEY": key,
    }


def fixing(credential_id: str, key: str = KEY, origin: str = ORIGIN) -> tuple[FixedCredential, ...]:
    return load_config(variables(credential_id, key, origin)).fixed


async def get(client: Client, name: str) -> Any:
    return (await client.call(client.credentials.GetCredential, pb.GetCredentialRequest(name=name))).credential


async def versions(client: Client, name: str) -> Sequence[Any]:
    request = pb.ListCredentialVersionsRequest(parent=name)
    answer = await client.call(client.credentials.ListCredentialVersions, request)
    return list(answer.credential_versions)


async def leased_key(vault: Vault, name: str) -> str:
    """What a router gets for a member's call."""
    ada = await vault.issue(ACME, "MEMBER", user=ADA)
    return vault.router.open(await vault.take(f"{name}/versions/active", ada.token)).api_key


def changes_of(name: str) -> tuple[Any, ...]:
    """A right request of every kind that changes the credential, in an order in which each can be done."""
    parent, _, credential_id = name.rpartition("/credentials/")
    made = credential_pb2.Credential(
        provider="providers/openai", kind=credential_pb2.CREDENTIAL_KIND_API_KEY, allowed_origins=[ORIGIN]
    )
    return (
        pb.UpdateCredentialRequest(credential=credential_pb2.Credential(name=name, max_concurrent_requests=3)),
        pb.AddCredentialVersionRequest(parent=name, secret_material=credential_pb2.SecretMaterial(api_key=OTHER_KEY)),
        pb.ActivateCredentialVersionRequest(name=f"{name}/versions/2", force=True),
        pb.DisableCredentialVersionRequest(name=f"{name}/versions/2"),
        pb.DestroyCredentialVersionRequest(name=f"{name}/versions/2"),
        pb.DisableCredentialRequest(name=name),
        pb.EnableCredentialRequest(name=name),
        pb.DeleteCredentialRequest(name=name),
        pb.CreateCredentialRequest(parent=parent, credential_id=credential_id, credential=made),
    )


async def send(client: Client, request: Any) -> Any:
    return await client.call(getattr(client.credentials, type(request).__name__.removesuffix("Request")), request)


class FixedCredentialsSuite:
    """`open_store` gives the store again for each start."""

    async def test_a_start_takes_the_key_once_and_says_so(self, open_store: OpenStore, tmp_path: Path) -> None:
        fixed = fixing("fixed")
        async with running_vault(tmp_path, store=await open_store(), fixed=fixed) as vault:
            assert await leased_key(vault, NAME) == KEY
            credential = await get(vault.operator, NAME)
            assert credential.source == credential_pb2.CREDENTIAL_SOURCE_ENVIRONMENT
            assert (credential.provider, credential.fingerprint) == ("providers/openai", "sk-…9f3c")
            listed = pb.ListCredentialsRequest(parent="deployment")
            (same,) = [
                one
                for one in (await vault.operator.call(vault.operator.credentials.ListCredentials, listed)).credentials
                if one.name == NAME
            ]
            assert same == credential
            wanted = audit_service_pb2.ListAuditRecordsRequest(
                parent="chains/-",
                filter=audit_service_pb2.AuditFilter(resource=NAME, actions=[audit_pb2.AUDIT_ACTION_FIX_CREDENTIAL]),
            )
            outcome, intent = (await vault.operator.call(vault.operator.audit.ListAuditRecords, wanted)).audit_records
            assert (intent.resource, intent.outcome) == (NAME, audit_pb2.AUDIT_OUTCOME_INTENDED)
            assert (outcome.resource, outcome.outcome) == (
                f"{NAME}/versions/1",
                audit_pb2.AUDIT_OUTCOME_SUCCEEDED,
            )
            assert (outcome.identity.subject, outcome.identity.proof) == (
                "service",
                audit_pb2.AUDIT_IDENTITY_PROOF_SERVICE,
            )
            assert outcome.note == "KEYSWITCH_VAULT_FIXED_FIXED_KEY"
            assert KEY.encode() not in vault.audit_bytes()
        async with running_vault(tmp_path, store=await open_store(), fixed=fixed) as vault:
            assert len(await versions(vault.operator, NAME)) == 1
            assert vault.audit_bytes().count(b"AUDIT_ACTION_FIX_CREDENTIAL") == 2
        async with running_vault(tmp_path, store=await open_store(), fixed=fixing("fixed", OTHER_KEY)) as vault:
            assert len(await versions(vault.operator, NAME)) == 2
            assert await leased_key(vault, NAME) == OTHER_KEY

    async def test_what_the_environment_fixes_needs_to_be_said(self, open_store: OpenStore, tmp_path: Path) -> None:
        async with running_vault(tmp_path, store=await open_store(), fixed=fixing("fixed")) as vault:
            operator = vault.operator
            before = await get(operator, NAME), await versions(operator, NAME)
            for request in changes_of(NAME):
                refusal = await refused(send(operator, request))
                assert (refusal.reason, refusal.metadata) == (
                    "ERROR_REASON_CREDENTIAL_FIXED",
                    {"name": NAME},
                ), type(request).__name__
            assert (await get(operator, NAME), await versions(operator, NAME)) == before
            admin = await vault.issue(ACME, "ADMIN")
            stranger = await refused(send(admin, changes_of(NAME)[1]))
            assert stranger.reason in {"ERROR_REASON_CALLER_NOT_ALLOWED", "ERROR_REASON_CREDENTIAL_UNKNOWN"}
            for request in changes_of(NAME):
                request.override_environment = True
                await send(operator, request)
                if isinstance(request, pb.ActivateCredentialVersionRequest):
                    over = await get(operator, NAME)
                    assert over.source == credential_pb2.CREDENTIAL_SOURCE_STORED_OVER_ENVIRONMENT
                    assert await leased_key(vault, NAME) == OTHER_KEY
            await vault.ready(operator, f"{NAME}-2")
            free = await get(operator, f"{NAME}-2")
            assert free.source == credential_pb2.CREDENTIAL_SOURCE_STORED
        async with running_vault(tmp_path, store=await open_store(), fixed=fixing("fixed")) as vault:
            assert not await versions(vault.operator, NAME), "what was deleted on purpose is not brought back"

    async def test_break_glass_asks_nothing_and_a_start_does_not_undo_it(
        self, open_store: OpenStore, tmp_path: Path
    ) -> None:
        async with running_vault(tmp_path, store=await open_store(), fixed=fixing("fixed")) as vault:
            done = await send(vault.operator, pb.RevokeAllCredentialsRequest(parent="deployment"))
            assert done.disabled_count >= 1
        async with running_vault(tmp_path, store=await open_store(), fixed=fixing("fixed")) as vault:
            assert (await get(vault.operator, NAME)).state == credential_pb2.CREDENTIAL_STATE_DISABLED
            enable = pb.EnableCredentialRequest(name=NAME, override_environment=True)
            await send(vault.operator, enable)
            assert await leased_key(vault, NAME) == KEY

    async def test_it_does_not_start_over_a_credential_for_something_else(
        self, open_store: OpenStore, tmp_path: Path
    ) -> None:
        async with running_vault(tmp_path, store=await open_store(), fixed=fixing("fixed")):
            pass
        elsewhere = fixing("fixed", OTHER_KEY, "https://proxy.example")
        with pytest.raises(
            CannotStart, match="is there already, for another provider, kind, plan or origins"
        ) as caught:
            async with running_vault(tmp_path, store=await open_store(), fixed=elsewhere):
                pass
        assert "CANARY" not in str(caught.value)
