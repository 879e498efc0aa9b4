"""What was issued: one document per token, without its text, and the revocations on the change feed."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from vault_service.core.access import Caller, Role, Scope
from vault_service.core.changes import ChangeLog, TokenRevoked
from vault_service.core.documents import Documents
from vault_service.core.faults import Fault, Reason
from vault_service.core.law import REQUEST_ID_SECONDS, reused
from vault_service.core.names import Owner, TokenName, parse_tenant, parse_user
from vault_service.core.tokens import sign_token
from vault_service.store.store import Store

MIN_LIFETIME_SECONDS = 60.0
MAX_LIFETIME_SECONDS = 10 * 365.25 * 86_400
DEFAULT_LIFETIME_SECONDS = 90 * 86_400.0

_ROLES_OF_DEPLOYMENT = frozenset({Role.OPERATOR, Role.AUDITOR})
_ROLES_OF_ORGANIZATION = frozenset({Role.ADMIN, Role.MEMBER, Role.AUDITOR})


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """What a token says, and what became of it. Its text is not here."""

    name: TokenName
    display_name: str
    roles: frozenset[Role]
    create_time: float
    expire_time: float
    user: Owner | None = None
    application: str = ""
    scopes: frozenset[Scope] = frozenset()
    revoke_time: float | None = None

    @property
    def caller(self) -> Caller:
        """Who its bearer is."""
        return Caller(
            token_id=self.name.token_id,
            subject=str(self.user or self.name),
            owner=self.name.owner,
            roles=self.roles,
            expire_time=self.expire_time,
            user=self.user,
            application=self.application,
            scopes=self.scopes,
        )

    def is_active(self, time_seconds: float) -> bool:
        """Whether it still proves something."""
        return self.revoke_time is None and self.expire_time > time_seconds


def roles_of(owner: Owner) -> frozenset[Role]:
    """Gives the roles that a token of the deployment or of an organization can have."""
    return _ROLES_OF_DEPLOYMENT if owner.is_deployment else _ROLES_OF_ORGANIZATION


class Issuance:
    """Issues, lists and revokes."""

    def __init__(
        self,
        store: Store,
        changes: ChangeLog,
        *,
        issuer: str,
        clock: Callable[[], float],
        new_id: Callable[[], str],
    ) -> None:
        self._store = store
        self._changes = changes
        self._issuer = issuer
        self._clock = clock
        self._new_id = new_id
        self._tokens: Documents[IssuedToken] = Documents(
            store, encode=_encode, decode=_decode, name=lambda token: _path(token.name)
        )
        self._requests: Documents[dict[str, float]] = Documents(
            store, encode=lambda ids: json.dumps(ids).encode(), decode=json.loads
        )

    def draft(
        self,
        owner: Owner,
        display_name: str,
        roles: frozenset[Role],
        lifetime_seconds: float,
        *,
        user: Owner | None = None,
        application: str = "",
        scopes: frozenset[Scope] = frozenset(),
    ) -> IssuedToken:
        """Gives a token that is named and dated but neither kept nor signed yet."""
        now = float(int(self._clock()))
        return IssuedToken(
            name=TokenName(owner, self._new_id()),
            display_name=display_name,
            roles=roles,
            create_time=now,
            expire_time=float(int(now + lifetime_seconds)),
            user=user,
            application=application,
            scopes=scopes,
        )

    async def issue(self, token: IssuedToken, request_id: str = "", *, call_id: str = "") -> str:
        """Keeps what was issued and gives the text, the only time."""
        if request_id:
            await self._take_request_id(token.name.owner, request_id, call_id=call_id)
        await self._tokens.change(_path(token.name), lambda _: token, request_id=call_id)
        return await sign_token(self._store, token.caller, issuer=self._issuer, create_time=token.create_time)

    async def list_issued(self, owner: Owner, *, show_inactive: bool, call_id: str = "") -> Sequence[IssuedToken]:
        """Gives the tokens of the deployment or an organization, the newest first."""
        ids = await self._store.list(_folder(owner), request_id=call_id)
        found = [await self._tokens.read(f"{_folder(owner)}/{one}", request_id=call_id) for one in ids]
        now = self._clock()
        wanted = [token for token in found if token is not None and (show_inactive or token.is_active(now))]
        return sorted(wanted, key=lambda token: (-token.create_time, token.name.token_id))

    async def revoke(self, name: TokenName, *, call_id: str = "") -> IssuedToken:
        """Makes one void. Told again when it is repeated."""

        def change(before: IssuedToken | None) -> IssuedToken:
            if before is None:
                raise Fault(Reason.TOKEN_UNKNOWN, {"name": str(name)})
            return before if before.revoke_time is not None else replace(before, revoke_time=self._clock())

        _, token = await self._tokens.change(_path(name), change, request_id=call_id)
        await self._changes.append([TokenRevoked(name.token_id, token.expire_time)], request_id=call_id)
        return token

    async def _take_request_id(self, owner: Owner, request_id: str, *, call_id: str) -> None:
        def change(before: dict[str, float] | None) -> dict[str, float]:
            now = self._clock()
            recent = {one: time for one, time in (before or {}).items() if now - time < REQUEST_ID_SECONDS}
            if request_id in recent:
                raise reused(request_id)
            return recent | {request_id: now}

        await self._requests.change(f"{owner}/token-requests", change, request_id=call_id)


def _folder(owner: Owner) -> str:
    return f"{owner}/tokens"


def _path(name: TokenName) -> str:
    return str(name)


def _encode(token: IssuedToken) -> bytes:
    document = {
        "owner": str(token.name.owner),
        "token_id": token.name.token_id,
        "display_name": token.display_name,
        "roles": sorted(role.value for role in token.roles),
        "create_time": token.create_time,
        "expire_time": token.expire_time,
        "user": str(token.user) if token.user else "",
        "application": token.application,
        "scopes": sorted(scope.value for scope in token.scopes),
        "revoke_time": token.revoke_time,
    }
    return json.dumps(document, separators=(",", ":")).encode()


def _decode(value: bytes) -> IssuedToken:
    document = json.loads(value)
    return IssuedToken(
        name=TokenName(parse_tenant(document["owner"]), document["token_id"]),
        display_name=document["display_name"],
        roles=frozenset(Role(role) for role in document["roles"]),
        create_time=document["create_time"],
        expire_time=document["expire_time"],
        user=parse_user(document["user"], "user") if document["user"] else None,
        application=document["application"],
        scopes=frozenset(Scope(scope) for scope in document["scopes"]),
        revoke_time=document["revoke_time"],
    )
