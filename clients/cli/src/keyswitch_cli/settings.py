"""Where the services are and who calls: options, then the environment, then KEYSWITCH_HOME."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from keyswitch_client import ClientCertificate

from keyswitch_cli.problem import Problem

OPERATOR_TOKEN_FILE = "operator.token"  # noqa: S105 # the name of a file
CA_FILE = "ca.pem"


@dataclass(frozen=True)
class Identity:
    """What the token says of its bearer. Read without checking it: the services do that.

    A certificate and a token of another issuer say it in words that only the services' files translate.
    """

    organization: str = ""
    user: str = ""
    application: str = ""
    roles: tuple[str, ...] = ()
    is_untold: bool = False

    @property
    def owner(self) -> str:
        """Whose keys the bearer means when nothing else is said."""
        if self.user and not {"admin", "operator"} & set(self.roles):
            return self.user
        return self.organization or "deployment"


@dataclass(frozen=True)
class Settings:
    """What the options and the environment said."""

    home: Path
    router_target: str
    vault_target: str
    token_text: str | None
    token_file: Path | None
    organization_id: str | None
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None

    @cached_property
    def ca_pem(self) -> bytes | None:
        """The deployment's own authority; without the file the system's authorities are trusted."""
        path = self.ca_file or self.home / CA_FILE
        if self.ca_file is not None and not path.is_file():
            raise Problem(f"The authority's file {path} is not there.", advice="Name another one with --ca.")
        return path.read_bytes() if path.is_file() else None

    @cached_property
    def certificate(self) -> ClientCertificate | None:
        """The caller's certificate; None where callers come with tokens."""
        if self.certificate_file is None and self.key_file is None:
            return None
        if self.certificate_file is None or self.key_file is None:
            raise Problem(
                "A certificate and its key belong together.", advice="Give both --cert and --key.", exit_code=2
            )
        try:
            return ClientCertificate.read(self.certificate_file, self.key_file)
        except (OSError, ValueError, TypeError, LookupError) as error:
            why = error.strerror if isinstance(error, OSError) else "they are no pair of PEM with a SPIFFE id"
            raise Problem(
                f"{self.certificate_file} and {self.key_file} cannot be used: {why}.",
                advice="Name the certificate with its chain as --cert, and its key without a passphrase as --key.",
                exit_code=3,
            ) from None

    @property
    def call_token(self) -> str | None:
        """The token that goes with calls; none beside a certificate unless one was named."""
        is_named = self.token_text is not None or self.token_file is not None
        return self.token if is_named or self.certificate is None else None

    @cached_property
    def token(self) -> str:
        """The text of the caller's token."""
        if self.token_text is not None:
            if not self.token_text.strip():
                raise Problem(
                    "The token is empty.", advice="Unset KEYSWITCH_TOKEN, or give it a token's text.", exit_code=3
                )
            return self.token_text.strip()
        path = self.token_file or self.home / OPERATOR_TOKEN_FILE
        try:
            return path.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise Problem(
                f"There is no token: {path} cannot be read ({error.strerror}).",
                advice="Start the services with `make run` in this folder, or name a token with --token-file FILE or "
                "KEYSWITCH_TOKEN.",
                exit_code=3,
            ) from None

    @cached_property
    def identity(self) -> Identity:
        """Who the token says that its bearer is."""
        claims = _claims(self.call_token or "")
        subject = str(claims.get("sub", ""))
        if self.call_token is None or (claims and not subject.startswith(("organizations/", "deployment/"))):
            return Identity(is_untold=True)
        return Identity(
            organization=str(claims.get("org", "")),
            user=subject if "/users/" in subject else "",
            application=str(claims.get("app", "")),
            roles=tuple(str(role) for role in claims.get("roles", ())),
        )

    @property
    def organization(self) -> str:
        """The organization's name; empty for the deployment's own bearers who named none."""
        return f"organizations/{self.organization_id}" if self.organization_id else self.identity.organization

    def require_organization(self) -> str:
        """The organization's name, or a Problem that says how to give it."""
        if not self.organization:
            who = "a certificate or a token of another issuer" if self.identity.is_untold else "the token"
            raise Problem(
                f"This needs an organization, and {who} names none.",
                advice="Add --organization ID before the command, or set KEYSWITCH_ORGANIZATION.",
            )
        return self.organization

    def application(self, text: str | None) -> str:
        """The whole name of an application that may be given by its id alone; empty when none is given."""
        if not text or "/" in text:
            return text or ""
        return f"{self.require_organization()}/applications/{text}"

    def owner(self, text: str | None) -> str:
        """The whole name of an owner of keys: a name, "deployment", "organization" or a user's id."""
        match text:
            case None if self.organization_id or self.identity.is_untold:
                return self.require_organization()
            case None:
                return self.identity.owner
            case "deployment":
                return text
            case "organization":
                return self.require_organization()
            case "me":
                if not self.identity.user:
                    raise Problem("The token names no user, so there is no `me`.", advice="Name the owner.")
                return self.identity.user
            case _:
                return text if "/" in text else f"{self.require_organization()}/users/{text}"

    def credential(self, text: str, owner: str | None = None) -> str:
        """The whole name of a credential that may be given by its id alone."""
        return text if "/" in text else f"{self.owner(owner)}/credentials/{text}"


def _claims(token: str) -> dict[str, Any]:
    parts = token.split(".")
    if len(parts) != 3:
        return {}
    try:
        payload = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError):
        return {}
    return payload if isinstance(payload, dict) else {}
