"""Whether users may keep keys of their own: one switch of the deployment, one below it of every organization."""

import json
from dataclasses import dataclass

from vault_service.core.changes import ChangeLog, PolicyUpdated
from vault_service.core.documents import Documents
from vault_service.core.faults import Fault, Reason
from vault_service.core.names import Owner
from vault_service.store.store import Store


@dataclass(frozen=True, slots=True)
class Policy:
    """As stored, or the default. `changes` is 0 where nothing was ever stored."""

    owner: Owner
    user_credentials_enabled: bool
    changes: int

    @property
    def name(self) -> str:
        """The resource name, which is also the path in the store."""
        return f"{self.owner}/credentialPolicy"

    @property
    def etag(self) -> str:
        """Changes with every change."""
        return f"{self.changes}-{'on' if self.user_credentials_enabled else 'off'}"


class Policies:
    """Reads and sets the switches."""

    def __init__(self, store: Store, changes: ChangeLog, *, deployment_default: bool) -> None:
        self._documents: Documents[tuple[bool, int]] = Documents(store, encode=_encode, decode=_decode)
        self._changes = changes
        self._deployment_default = deployment_default

    async def get(self, owner: Owner, *, request_id: str = "") -> Policy:
        """Gives the switch of the deployment or an organization."""
        return self._policy(owner, await self._documents.read(_path(owner), request_id=request_id))

    async def set(self, owner: Owner, enabled: bool, etag: str, *, request_id: str = "") -> Policy:
        """Sets it; no organization can switch on what the deployment switches off.

        Setting it to what it is writes nothing and tells it again: perhaps it was written before and not told.
        """
        if enabled and not owner.is_deployment and not (await self.get(Owner())).user_credentials_enabled:
            raise Fault(Reason.BYOK_DISABLED, {"parent": str(owner)})

        def change(stored: tuple[bool, int] | None) -> tuple[bool, int]:
            before = self._policy(owner, stored)
            if etag and etag != before.etag:
                raise Fault(Reason.VERSION_CONFLICT, {"name": before.name})
            if stored is not None and before.user_credentials_enabled == enabled:
                return stored
            return enabled, before.changes + 1

        _, after = await self._documents.change(_path(owner), change, request_id=request_id)
        await self._changes.append([PolicyUpdated(str(owner))], request_id=request_id)
        return self._policy(owner, after)

    async def are_user_credentials_enabled(self, owner: Owner, *, request_id: str = "") -> bool:
        """Whether keys of users may be used for this owner now."""
        if not (await self.get(Owner(), request_id=request_id)).user_credentials_enabled:
            return False
        return owner.is_deployment or (await self.get(owner.parent, request_id=request_id)).user_credentials_enabled

    async def require(self, owner: Owner, *, request_id: str = "") -> None:
        """Raises BYOK_DISABLED where the owner is a user whose keys are ignored now."""
        if owner.is_user and not await self.are_user_credentials_enabled(owner, request_id=request_id):
            raise Fault(Reason.BYOK_DISABLED, {"parent": str(owner)})

    def _policy(self, owner: Owner, stored: tuple[bool, int] | None) -> Policy:
        default = self._deployment_default if owner.is_deployment else True
        enabled, changes = stored or (default, 0)
        return Policy(owner, enabled, changes)


def _path(owner: Owner) -> str:
    return f"{owner}/credentialPolicy"


def _encode(stored: tuple[bool, int]) -> bytes:
    return json.dumps(stored).encode()


def _decode(value: bytes) -> tuple[bool, int]:
    enabled, changes = json.loads(value)
    return bool(enabled), int(changes)
