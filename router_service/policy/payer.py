"""Whether a payer can serve an endpoint, and with which credential.

A key that is not there, or cannot be used, passes the question on to the next payer. A key that is there and fails
later does not: that is decided in plan.py and retry.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

from router_service.catalog.catalog import Model, Provider, Snapshot
from router_service.core.caller import Credential, Holdings
from router_service.core.resolution import Payer, SkipReason
from router_service.policy.call import Call


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a payer cannot serve an endpoint. `message` says what to do and who can do it."""

    reason: SkipReason
    message: str


def credentials_of(payer: Payer, holdings: Holdings, snapshot: Snapshot) -> Sequence[Credential]:
    """The credentials that a payer may use, by name."""
    match payer:
        case Payer.USER_KEY:
            return holdings.user
        case Payer.ORGANIZATION_KEY:
            return holdings.organization
        case Payer.SHARED_KEY | Payer.CREDITS | Payer.FREE:
            served = snapshot.deployment_credentials
            return [
                credential
                for credential in holdings.deployment
                if (entry := served.get(credential.name.rpartition("/")[2])) is not None and payer in entry.payers
            ]
        case _:
            assert_never(payer)


def refuse_payer(payer: Payer, call: Call, snapshot: Snapshot, holdings: Holdings) -> Refusal | None:
    """What keeps a payer from serving anything at all."""
    if payer.is_own_key and not call.application.byok_supported:
        return Refusal(SkipReason.BYOK_NOT_SUPPORTED, f"{call.application.name} does not use own keys.")
    if payer is Payer.USER_KEY and not (snapshot.byok_enabled and holdings.user_credentials_enabled):
        return Refusal(
            SkipReason.BYOK_DISABLED, "Keys of users are switched off; the operator or an administrator can allow them."
        )
    return None


def pick_credential(
    payer: Payer,
    call: Call,
    provider: Provider,
    model: Model,
    available: Sequence[Credential],
    now: float,
    pinned: str = "",
) -> Credential | Refusal | None:
    """The credential that a payer would use for a provider; None where the provider needs none.

    `pinned` is the one that a route names: it stands above the application's binding.
    """
    if payer.is_own_key and not provider.is_byok_supported:
        return Refusal(SkipReason.BYOK_NOT_SUPPORTED, f"{provider.name} sells no keys to its users.")
    if not payer.is_own_key and model.owner:
        message = f"{model.id} is the organization's own entry, so only its own keys serve it."
        return Refusal(SkipReason.MODEL_NOT_ALLOWED, message)
    if payer is Payer.CREDITS and model.price_at(provider.id) is None:
        return Refusal(
            SkipReason.PRICE_UNKNOWN, f"{model.id} has no price, so credits cannot pay; the operator can set one."
        )
    if provider.is_keyless:
        if payer.is_own_key and not (provider.owner and payer is Payer.ORGANIZATION_KEY):
            return Refusal(SkipReason.NO_CREDENTIAL, f"{provider.name} takes no key; the deployment serves it.")
        return None
    binding = None if pinned else call.application.bindings.get(payer)
    wanted = pinned or binding
    fitting = [
        credential
        for credential in available
        if credential.provider == provider.name and (wanted is None or credential.name == wanted)
    ]
    if not fitting:
        if pinned:
            message = f"The route names {pinned}, which is no key for {provider.name} or not {payer.value}'s."
            return Refusal(SkipReason.NO_CREDENTIAL, message)
        return Refusal(SkipReason.NO_CREDENTIAL, _advice(payer, provider, binding))
    refusals = [refuse_credential(credential, provider, now) for credential in fitting]
    for credential, refusal in zip(fitting, refusals, strict=True):
        if refusal is None:
            return credential
    return refusals[0]


def refuse_credential(credential: Credential, provider: Provider, now: float) -> Refusal | None:
    """What keeps a credential from being used."""
    if not credential.is_enabled:
        return Refusal(SkipReason.CREDENTIAL_DISABLED, f"{credential.name} is disabled; its owner can enable it.")
    if not credential.active_version:
        return Refusal(SkipReason.CREDENTIAL_DISABLED, f"{credential.name} has no active version; activate one.")
    if credential.expire_time is not None and credential.expire_time <= now:
        return Refusal(SkipReason.CREDENTIAL_DISABLED, f"{credential.name} has expired; its owner can renew it.")
    if provider.base_url.origin not in credential.allowed_origins:
        return Refusal(
            SkipReason.ORIGIN_NOT_ALLOWED,
            f"{credential.name} may not be sent to {provider.base_url.origin}; create one that allows it.",
        )
    return None


def _advice(payer: Payer, provider: Provider, binding: str | None) -> str:
    if binding is not None:
        return f"The application is bound to {binding}, which is no key for {provider.name} or is not there."
    match payer:
        case Payer.USER_KEY:
            return f"You have saved no key for {provider.name}: keyswitch keys add."
        case Payer.ORGANIZATION_KEY:
            return f"The organization has no key for {provider.name}; an administrator can save one."
        case Payer.SHARED_KEY | Payer.CREDITS | Payer.FREE:
            return f"The deployment has no key for {provider.name} that serves {payer.value}; the operator can add one."
        case _:
            assert_never(payer)
