"""Several ciphertexts of one key in one request to transit, and what became of each.

Rule: https://developer.hashicorp.com/vault/api-docs/secret/transit#decrypt-data (batch_input). Each item keeps the
associated data of its own, and a reference that Vault repeats: an answer is taken only where both name the same item.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from vault_service.store.store import StoreError


@dataclass(frozen=True, slots=True)
class SealedItem:
    """What is to be opened, and for which call."""

    ciphertext: str
    associated_data: str
    request_id: str


@dataclass(frozen=True, slots=True)
class OpenedItem:
    """What became of it: what Vault says is its plaintext, in base64, or why there is none."""

    text: object = field(default=None, repr=False)
    vault_request_ids: Sequence[str] = ()
    problem: StoreError | None = None

    def after(self, vault_request_ids: Sequence[str]) -> "OpenedItem":
        """The same with the ids of requests that were made for it before."""
        return replace(self, vault_request_ids=(*vault_request_ids, *self.vault_request_ids))


def make_batch(sealed: Sequence[SealedItem]) -> Mapping[str, Any]:
    """Gives the body of the request. Where some open Vault is to say 200, or its whole answer would be a refusal."""
    items = [
        {"ciphertext": one.ciphertext, "associated_data": one.associated_data, "reference": str(number)}
        for number, one in enumerate(sealed)
    ]
    return {"batch_input": items, "partial_failure_response_code": 200}


def read_batch(answer: Mapping[str, Any], count: int) -> Sequence[object]:
    """Gives the plaintext of each item in base64, and None for one that did not open."""
    results = answer["data"]["batch_results"]
    if not isinstance(results, list) or len(results) != count:
        return [None] * count
    return [
        one.get("plaintext") if one.get("reference") == str(number) and not one.get("error") else None
        for number, one in enumerate(results)
    ]
