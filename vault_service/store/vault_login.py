"""How this service logs in to Vault: one function for each way. Nothing here shows a token in a repr or an error."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, assert_never

from hvac.api.auth_methods import AppRole, Kubernetes, Token

from vault_service.store.hvac_session import Exchange, VaultAdapter
from vault_service.store.store import Denied, StoreError
from vault_service.store.vault_errors import Refused, TokenRefused
from vault_service.store.vault_settings import AgentListener, AppRoleFiles, KubernetesRole, TokenFile, VaultSettings


@dataclass(frozen=True, slots=True)
class Grant:
    """A token and its time. `lease_seconds` is None for a token without an end."""

    token: str = field(repr=False)
    lease_seconds: float | None
    renewable: bool


class Logins:
    """The logins of one store. It remembers a secret id that came wrapped, since a wrapping opens only once."""

    def __init__(self, adapter: VaultAdapter, settings: VaultSettings) -> None:
        self._adapter = adapter
        self._settings = settings
        self._unwrapped: tuple[str, str] | None = None  # the wrapping token, and the secret id that was in it

    def log_in(self) -> Grant:
        """Logs in. Blocks. Raises Denied when the credentials are missing or refused."""
        self._refuse_ignored_namespace()
        match self._settings.login:
            case AppRoleFiles() as login:
                return self._log_in_by_role(login)
            case KubernetesRole() as login:
                return self._log_in_by_service_account(login)
            case TokenFile() as login:
                return self._log_in_by_token(login)
            case AgentListener():
                return Grant("", None, renewable=False)
            case _ as login:
                assert_never(login)

    def renew(self, token: str) -> Grant:
        """Renews the token. Blocks."""
        with self._adapter.exchanging(Exchange(token)):
            return _grant_of(Token(self._adapter).renew_self())

    def is_dead(self, token: str) -> bool:
        """Asks whether the token is known at all, which OpenBao's refusal of a call does not say. Blocks."""
        try:
            with self._adapter.exchanging(Exchange(token)):
                Token(self._adapter).lookup_self()
        except TokenRefused:
            return bool(token)
        except StoreError:
            return False  # what was refused is what the caller must hear of
        return False

    def revoke(self, token: str) -> None:
        """Gives a token back that a login here has made; one from a file is somebody else's. Blocks."""
        if token and isinstance(self._settings.login, AppRoleFiles | KubernetesRole):
            with self._adapter.exchanging(Exchange(token)):
                Token(self._adapter).revoke_self()

    def _refuse_ignored_namespace(self) -> None:
        """A Community server takes the header of a namespace, says nothing, and answers from its root."""
        if not self._settings.namespace:
            return
        with self._adapter.exchanging(Exchange("", is_in_root=True)):
            # Answers with a status of its own when the server is sealed or a standby; the login would fail on it too.
            health = self._adapter.get("/v1/sys/health", params={"standbyok": "true", "perfstandbyok": "true"})
        if health.get("enterprise") is False:
            raise Denied(
                "this Vault server has no namespaces and would silently use its root instead; "
                "unset the namespace, or name a server that has it"
            )

    def _log_in_by_role(self, login: AppRoleFiles) -> Grant:
        role_id, secret_id = _read_secret(login.role_id_file), _read_secret(login.secret_id_file)
        if login.is_wrapped:
            secret_id = self._unwrap(secret_id, login)
        status = None
        with self._adapter.exchanging(Exchange("")):
            try:
                method = AppRole(self._adapter)
                return _grant_of(method.login(role_id, secret_id, use_token=False, mount_point=login.mount))
            except (Refused, TokenRefused) as fault:
                status = fault.status
        raise Denied("Vault refused the role id or the secret id; mount a fresh secret id", status=status)

    def _unwrap(self, wrapping_token: str, login: AppRoleFiles) -> str:
        """Opens a wrapped secret id, after making sure that it is one: whoever can write the file could wrap another.

        Rule: https://developer.hashicorp.com/vault/docs/concepts/response-wrapping (validating a wrapping token).
        """
        if self._unwrapped is not None and self._unwrapped[0] == wrapping_token:
            return self._unwrapped[1]
        status = None
        try:
            with self._adapter.exchanging(Exchange("")):
                found = self._adapter.post("/v1/sys/wrapping/lookup", json={"token": wrapping_token})
            made_at = str(found["data"].get("creation_path", ""))
            if not _makes_secret_ids(made_at, login.mount):
                raise Denied(
                    f"what is wrapped in {login.secret_id_file} was not made as a secret id; "
                    "somebody may have swapped it: look into it, and mount a fresh one"
                )
            with self._adapter.exchanging(Exchange(wrapping_token)):
                answer = self._adapter.post("/v1/sys/wrapping/unwrap")
            secret_id = str(answer["data"]["secret_id"])
        except (Refused, TokenRefused) as fault:
            status = fault.status
        else:
            self._unwrapped = (wrapping_token, secret_id)
            return secret_id
        raise Denied(
            f"the wrapped secret id in {login.secret_id_file} has expired or was opened before; "
            "unless this service opened it before a restart, somebody else has it: revoke it and mount a fresh one",
            status=status,
        )

    def _log_in_by_service_account(self, login: KubernetesRole) -> Grant:
        service_account_token = _read_secret(login.token_file)
        status = None
        with self._adapter.exchanging(Exchange("")):
            try:
                method = Kubernetes(self._adapter)
                answer = method.login(login.role, service_account_token, use_token=False, mount_point=login.mount)
                return _grant_of(answer)
            except (Refused, TokenRefused) as fault:
                status = fault.status
        raise Denied(
            f"Vault refused this pod's service account for the role {login.role}; "
            "compare the role's bound names, namespaces and audience with the pod's",
            status=status,
        )

    def _log_in_by_token(self, login: TokenFile) -> Grant:
        token = _read_secret(login.token_file)
        status = None
        with self._adapter.exchanging(Exchange(token)):
            try:
                data = Token(self._adapter).lookup_self()["data"]
                lease_seconds = None if data.get("expire_time") is None else float(data["ttl"])
                return Grant(token, lease_seconds, bool(data.get("renewable")))
            except TokenRefused as fault:
                status = fault.status
        raise Denied(f"Vault refused the token in {login.token_file}; put a fresh one there", status=status)


def _read_secret(path: Path) -> str:
    try:
        value = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        value = ""
    if not value or not value.isprintable():
        raise Denied(f"{path} cannot be read or holds no credential; mount it readable by this user")
    return value


def _makes_secret_ids(path: str, mount: str) -> bool:
    start, _, end = path.removeprefix(f"auth/{mount}/role/").rpartition("/")
    return path.startswith(f"auth/{mount}/role/") and bool(start) and "/" not in start and end == "secret-id"


def _grant_of(answer: dict[str, Any]) -> Grant:
    auth = answer["auth"]
    return Grant(auth["client_token"], float(auth["lease_duration"]), bool(auth["renewable"]))
