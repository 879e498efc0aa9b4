"""Who answers and who pays, as values. Mirrors payer.proto and resolution.proto."""

from dataclasses import dataclass
from enum import Enum


class Payer(Enum):
    """Whose account pays for an attempt."""

    USER_KEY = "USER_KEY"
    ORGANIZATION_KEY = "ORGANIZATION_KEY"
    SHARED_KEY = "SHARED_KEY"
    CREDITS = "CREDITS"
    FREE = "FREE"

    @property
    def is_own_key(self) -> bool:
        """Whether the caller's side brought the key."""
        return self in (Payer.USER_KEY, Payer.ORGANIZATION_KEY)


class PayerFailoverCause(Enum):
    """What may move the bill from a payer that has a key to the next one."""

    RATE_LIMITED = "RATE_LIMITED"
    BALANCE_EXHAUSTED = "BALANCE_EXHAUSTED"
    CREDENTIAL_REJECTED = "CREDENTIAL_REJECTED"
    UNAVAILABLE = "UNAVAILABLE"


class ModelSource(Enum):
    """What named a model."""

    PERSONAL_OVERRIDE = "PERSONAL_OVERRIDE"
    ADMINISTRATOR_OVERRIDE = "ADMINISTRATOR_OVERRIDE"
    CALL = "CALL"
    APPLICATION_DEFAULT = "APPLICATION_DEFAULT"
    ORGANIZATION_DEFAULT = "ORGANIZATION_DEFAULT"
    DEPLOYMENT_DEFAULT = "DEPLOYMENT_DEFAULT"
    FIRST_USABLE = "FIRST_USABLE"
    FALLBACK_ROUTE = "FALLBACK_ROUTE"


class CandidateReason(Enum):
    """What put a candidate at its place."""

    CATALOG_ORDER = "CATALOG_ORDER"
    APPLICATION_ORDER = "APPLICATION_ORDER"
    CALL_ORDER = "CALL_ORDER"
    FALLBACK_ROUTE = "FALLBACK_ROUTE"
    PAYER_FAILOVER = "PAYER_FAILOVER"
    FREE_POOL = "FREE_POOL"
    WEIGHT = "WEIGHT"


class OverrideLayer(Enum):
    """Who may override the model of a context."""

    ADMINISTRATOR = "ADMINISTRATOR"
    USER = "USER"


class SkipReason(Enum):
    """Why a candidate or a stored choice was not taken."""

    MODEL_NOT_FOUND = "MODEL_NOT_FOUND"
    MODEL_DISABLED = "MODEL_DISABLED"
    MODEL_NOT_ALLOWED = "MODEL_NOT_ALLOWED"
    MODEL_NOT_ALLOWED_WITH_OWN_KEY = "MODEL_NOT_ALLOWED_WITH_OWN_KEY"
    CAPABILITY_MISSING = "CAPABILITY_MISSING"
    CONTEXT_TOO_LONG = "CONTEXT_TOO_LONG"
    PROVIDER_DISABLED = "PROVIDER_DISABLED"
    PROVIDER_EXCLUDED = "PROVIDER_EXCLUDED"
    PROVIDER_NOT_PINNABLE = "PROVIDER_NOT_PINNABLE"
    PAYER_EXCLUDED = "PAYER_EXCLUDED"
    EARLIER_PAYER = "EARLIER_PAYER"
    NO_CREDENTIAL = "NO_CREDENTIAL"
    CREDENTIAL_DISABLED = "CREDENTIAL_DISABLED"
    ORIGIN_NOT_ALLOWED = "ORIGIN_NOT_ALLOWED"
    BYOK_DISABLED = "BYOK_DISABLED"
    BYOK_NOT_SUPPORTED = "BYOK_NOT_SUPPORTED"
    PRICE_UNKNOWN = "PRICE_UNKNOWN"
    CREDIT_EXHAUSTED = "CREDIT_EXHAUSTED"
    COOLING_DOWN = "COOLING_DOWN"
    SLOTS_TAKEN = "SLOTS_TAKEN"
    ATTEMPTS_EXHAUSTED = "ATTEMPTS_EXHAUSTED"


@dataclass(frozen=True, slots=True)
class SkippedModelChoice:
    """A stored choice of a model that could not be used."""

    source: ModelSource
    model: str
    reason: SkipReason


@dataclass(frozen=True, slots=True)
class SkippedCandidate:
    """A way to answer that was considered and not taken. `payer` is None where it never came to that question."""

    model: str
    provider: str
    payer: Payer | None
    reason: SkipReason
    message: str


@dataclass(frozen=True, slots=True)
class Resolution:
    """Which model answers, where, with which key and on whose account. `attempt` is 0 where nothing is sent."""

    requested_model: str
    model: str
    model_source: ModelSource
    provider: str
    payer: Payer
    credential_version: str
    attempt: int
    skipped_choices: tuple[SkippedModelChoice, ...] = ()
