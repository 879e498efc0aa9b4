"""Recipients' keys that were vouched for lately: a router sends the same proof with each lease.

Two signatures and a chain take longer than everything else about a lease. What was found holds for the very same key,
signature and chain, while the authorities are the same, and ends with the first certificate that it may rest on.
"""

from collections import OrderedDict
from collections.abc import Collection, Sequence

from cryptography import x509

from vault_service.core.sealing import check_recipient

MAX_RECIPIENTS = 1024

_Proof = tuple[bytes, bytes, tuple[x509.Certificate, ...]]


class Recipients:
    """The memory around `check_recipient`. Only what was found good is kept."""

    def __init__(self, allowed_identities: Collection[str], *, max_recipients: int = MAX_RECIPIENTS) -> None:
        self._allowed_identities = allowed_identities
        self._max_recipients = max_recipients
        self._authorities: Sequence[x509.Certificate] = ()
        self._held: OrderedDict[_Proof, tuple[str, float, float]] = OrderedDict()

    def check(
        self,
        public_key: bytes,
        signature: bytes,
        chain: Sequence[x509.Certificate],
        *,
        authorities: Sequence[x509.Certificate],
        time_seconds: float,
    ) -> str:
        """Gives the SPIFFE id that vouches for the key. Raises RECIPIENT_KEY_REJECTED."""
        if authorities is not self._authorities:
            self._held.clear()
            self._authorities = authorities
        proof = public_key, signature, tuple(chain)
        held = self._held.get(proof)
        if held is not None:
            identity, from_time, end_time = held
            if from_time <= time_seconds < end_time:
                self._held.move_to_end(proof)
                return identity
        identity = check_recipient(
            public_key,
            signature,
            chain,
            authorities=authorities,
            allowed_identities=self._allowed_identities,
            time_seconds=time_seconds,
        )
        self._held[proof] = identity, time_seconds, _end_time((*chain, *authorities), time_seconds)
        while len(self._held) > self._max_recipients:
            self._held.popitem(last=False)
        return identity


def _end_time(certificates: Sequence[x509.Certificate], time_seconds: float) -> float:
    """When the first of those that are valid now ends; the others bear nothing."""
    ends = (one.not_valid_after_utc.timestamp() for one in certificates)
    return min(end for end in ends if end >= time_seconds)
