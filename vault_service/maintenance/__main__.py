"""Maintenance of the store's keys, run by the operator: `python -m vault_service.maintenance --help`.

It reads the same environment as the service. Over Vault the service may run meanwhile, and the login needs the policy
`keyswitch-maintenance.hcl` besides the service's own; the embedded store is open for one program at a time.
"""

import argparse
import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from keyswitch.vault.v1 import audit_pb2

from vault_service.__main__ import harden_process, refuse_tracing
from vault_service.audit.chain import ChainBroken
from vault_service.audit.recorder import SERVICE
from vault_service.config import Config, ConfigError, load_config
from vault_service.core.changes import ChangeLog
from vault_service.core.credentials import Credentials
from vault_service.core.faults import Fault, Reason
from vault_service.core.names import Owner, parse_tenant
from vault_service.core.policies import Policies
from vault_service.maintenance.materials import list_tenants
from vault_service.maintenance.migration import migrate
from vault_service.maintenance.recording import recording
from vault_service.maintenance.rotation import rotate_tenant
from vault_service.maintenance.shredding import shred_tenant
from vault_service.store.embedded import EmbeddedStore
from vault_service.store.store import MaintainedStore, StoreError
from vault_service.store.vault_settings import VaultSettings

if TYPE_CHECKING:
    from vault_service.store.hashicorp import HashiCorpStore

_EXIT_CONFIGURATION = 78
_PATIENCE_SECONDS = 60.0
"""For each question to Vault. Nobody's call waits here, and the first import makes Vault find an RSA key of 4,096 bits,
which takes a slow machine many seconds."""


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Gives the exit code."""
    options = _parser().parse_args(arguments)
    try:
        refuse_tracing(environment)
        config = load_config(environment)
        harden_process()
        asyncio.run(_run(options, config))
    except ConfigError as error:
        sys.stderr.write(f"vault_service.maintenance: {error}\n")
        return _EXIT_CONFIGURATION
    except (StoreError, Fault, ChainBroken) as error:
        sys.stderr.write(f"vault_service.maintenance: {_explain(error)}\n")
        return 1
    return 0


def _explain(error: StoreError | Fault | ChainBroken) -> str:
    """Says what to mend: the text of a store or chain, which names paths and settings and no secret, or a reason's."""
    if not isinstance(error, Fault):
        return str(error)
    if isinstance(error.__cause__, StoreError):
        words = error.__cause__.detail
        return words if words and error.reason is Reason.INTERNAL else f"{error.reason.value}: {words}"
    return f"{error.reason.value} {dict(error.metadata)}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m vault_service.maintenance", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    rotate = commands.add_parser("rotate-keys", help="a new key version for tenants, and their secrets under it")
    rotate.add_argument("--tenant", help="deployment or organizations/ID; all where none is named")
    shred = commands.add_parser("shred-tenant", help="revokes and destroys all secrets of a tenant, then its key")
    shred.add_argument("tenant", help="deployment or organizations/ID")
    shred.add_argument("--confirm", required=True, metavar="TENANT", help="the tenant once more: nothing undoes this")
    commands.add_parser("rotate-root-key", help="another root key for the embedded store")
    commands.add_parser("migrate-to-vault", help="copies the embedded store into Vault and compares both")
    return parser


async def _run(options: argparse.Namespace, config: Config) -> None:
    match options.command:
        case "rotate-keys":
            await _rotate_keys(config, options.tenant)
        case "shred-tenant":
            if options.confirm != options.tenant:
                raise ConfigError("--confirm must repeat the tenant")
            await _shred(config, parse_tenant(options.tenant))
        case "rotate-root-key":
            await _rotate_root_key(config)
        case _:
            await _migrate(config)


async def _rotate_keys(config: Config, tenant: str | None) -> None:
    async with _opened(config) as store, recording(config.audit_folder, store) as recorder:
        for one in (parse_tenant(tenant),) if tenant else await list_tenants(store):
            async with recorder.doing(SERVICE, audit_pb2.AUDIT_ACTION_ROTATE_TENANT_KEY, str(one)):
                done = await rotate_tenant(store, one)
            _say(f"{one}: {done.resealed} values under a new key" if done.had_key else f"{one}: has no key")


async def _shred(config: Config, tenant: Owner) -> None:
    async with _opened(config) as store, recording(config.audit_folder, store) as recorder:
        changes = ChangeLog(store, clock=time.time, monotonic=time.monotonic, fresh_seconds=1.0)
        policies = Policies(store, changes, deployment_default=config.user_credentials_enabled)
        credentials = Credentials(store, changes, policies, clock=time.time)
        async with recorder.doing(SERVICE, audit_pb2.AUDIT_ACTION_SHRED_TENANT, str(tenant)):
            done = await shred_tenant(store, credentials, changes, tenant)
    _say(
        f"{tenant}: {done.deleted_credentials} credentials deleted, "
        f"{done.destroyed_values} values and the key destroyed"
    )


async def _rotate_root_key(config: Config) -> None:
    if config.store != "embedded":
        raise ConfigError("KEYSWITCH_VAULT_STORE must be embedded: Vault has its own operator for its root key")
    store = await EmbeddedStore.open(config.store_folder)
    try:
        async with (
            recording(config.audit_folder, store) as recorder,
            recorder.doing(SERVICE, audit_pb2.AUDIT_ACTION_ROTATE_ROOT_KEY, "deployment"),
        ):
            await store.rotate_root_key()
    finally:
        await store.close()
    _say(f"{config.store_folder} is under another root key; backups of the old one open backups of the old store only")


async def _migrate(config: Config) -> None:
    if config.hashicorp is None:
        raise ConfigError("KEYSWITCH_VAULT_STORE must be hashicorp, with the Vault that is to take over")
    source = await EmbeddedStore.open(config.store_folder)
    target = patient_store(config.hashicorp)
    try:
        async with (
            recording(config.audit_folder, target) as recorder,
            recorder.doing(SERVICE, audit_pb2.AUDIT_ACTION_MIGRATE_STORE, "deployment"),
        ):
            await target.check()
            done = await migrate(source, target)
    finally:
        await target.close()
        await source.close()
    _say(
        f"{done.written_values} values and {done.written_documents} documents were copied; "
        f"{done.verified_values} and {done.verified_documents} are the same in Vault. "
        f"Start the service with this environment, and destroy {config.store_folder} when it serves."
    )


@asynccontextmanager
async def _opened(config: Config) -> AsyncIterator[MaintainedStore]:
    store: MaintainedStore
    if config.hashicorp is not None:
        store = patient_store(config.hashicorp)
    elif config.store == "embedded":
        store = await EmbeddedStore.open(config.store_folder)
    else:
        raise ConfigError("KEYSWITCH_VAULT_STORE must be embedded or hashicorp: a store in memory has nothing to keep")
    try:
        await store.check()
        yield store
    finally:
        await store.close()


def patient_store(settings: VaultSettings) -> "HashiCorpStore":
    """A store over Vault that waits for each answer as long as an operator would."""
    from vault_service.store.hashicorp import HashiCorpStore

    patient = replace(settings, read_timeout_seconds=_PATIENCE_SECONDS, call_timeout_seconds=_PATIENCE_SECONDS)
    return HashiCorpStore(patient)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
