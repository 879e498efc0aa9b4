"""What a start needs from outside, read and opened; what is not there or not sound, said as what must be mended."""

import secrets
from collections.abc import Callable
from pathlib import Path

import structlog

from vault_service.audit.chain import ChainBroken
from vault_service.audit.chain_name import keep_chain_name
from vault_service.audit.sink import Files, Sink
from vault_service.config import Config
from vault_service.external import ExternalSettingsError, IssuerSettings, read_settings
from vault_service.store.store import Store
from vault_service.transport.tls import Certificates
from vault_service.workloads import Workloads, WorkloadsError

_log = structlog.stdlib.get_logger("vault_service.prerequisites")


class CannotStart(Exception):
    """Something outside the service must be mended first; the text says what."""


def read_certificates(config: Config) -> Certificates:
    """The service's own pair, and the authority of the routers' certificates."""
    try:
        return Certificates(config.tls)
    except FileNotFoundError as error:
        folder = Path(error.filename).parent
        text = f"{error.filename} is missing; for development `python -m vault_service.devca --home {folder}` makes it"
        raise CannotStart(text) from None
    except (OSError, ValueError, TypeError):
        text = (
            f"{config.tls.certificate} and {config.tls.key} are no readable pair, or {config.tls.ca} is no certificate"
        )
        raise CannotStart(text) from None


async def open_store(config: Config) -> Store:
    """The store of the configuration; only its own module, and what that needs, is imported."""
    match config.store:
        case "memory":
            from vault_service.store.memory import MemoryStore

            return MemoryStore()
        case "hashicorp" if config.hashicorp is not None:
            from vault_service.store.hashicorp import HashiCorpStore

            return HashiCorpStore(config.hashicorp)
        case _:
            from vault_service.store.embedded import EmbeddedStore

            return await EmbeddedStore.open(config.store_folder)


def open_sink(config: Config, *, clock: Callable[[], float], files: Files | None) -> Sink:
    """The audit chain of this instance, opened where it ends."""
    try:
        chain = config.chain or keep_chain_name(config.audit_folder, lambda: f"vault-{secrets.token_hex(4)}")
        return Sink(
            config.audit_folder,
            chain,
            clock=clock,
            files=files,
            segment_bytes=config.audit.segment_bytes,
            segment_seconds=config.audit.segment_seconds,
        )
    except ChainBroken as broken:
        raise CannotStart(str(broken)) from None


def read_issuers(config: Config) -> tuple[IssuerSettings, ...]:
    """The other issuers whose tokens prove callers."""
    try:
        return read_settings(config.issuers_file)
    except ExternalSettingsError as error:
        raise CannotStart(str(error)) from None


def read_workloads(config: Config, clock: Callable[[], float]) -> Workloads:
    """The callers with certificates; a file that changes and does not fit leaves the old ones in force."""
    try:
        return Workloads(config.workloads_file, clock, lambda: _log.warning("workloads_not_replaced"))
    except WorkloadsError as error:
        raise CannotStart(str(error)) from None
