"""AES-256-GCM envelopes of the stores that hold their own keys.

An envelope is one format byte, a 96-bit nonce and the ciphertext with its tag. What it is bound to (its tenant and
context, its purpose) is authenticated and not stored: an envelope that was moved does not open.
"""

import base64
import hashlib
from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from vault_service.store.store import Unsealable

KEY_BYTES = 32
_NONCE_BYTES = 12
_FORMAT = b"\x01"
_VERSIONED = b"\x02"
_VERSION_BYTES = 4

RandomBytes = Callable[[int], bytes]


def close_envelope(key: bytes, plaintext: bytes, bound_to: tuple[str, ...], random_bytes: RandomBytes) -> bytes:
    """Encrypts. A key may close 2^32 envelopes under random nonces; each tenant has its own, so none comes near."""
    nonce = random_bytes(_NONCE_BYTES)
    return _FORMAT + nonce + AESGCM(key).encrypt(nonce, plaintext, _bind(bound_to))


def close_versioned(
    version: int, key: bytes, plaintext: bytes, bound_to: tuple[str, ...], random_bytes: RandomBytes
) -> bytes:
    """Encrypts and says under which version of the key; the first one goes without saying."""
    envelope = close_envelope(key, plaintext, bound_to, random_bytes)
    return envelope if version == 1 else _VERSIONED + version.to_bytes(_VERSION_BYTES, "big") + envelope


def split_version(ciphertext: bytes) -> tuple[int, bytes]:
    """Gives the version of the key and the envelope. A version that was changed is another key, which opens nothing."""
    if ciphertext[:1] != _VERSIONED:
        return 1, ciphertext
    end = 1 + _VERSION_BYTES
    return int.from_bytes(ciphertext[1:end], "big"), ciphertext[end:]


def open_envelope(key: bytes, envelope: bytes, bound_to: tuple[str, ...]) -> bytes:
    """Decrypts, or raises Unsealable without telling which part was wrong."""
    nonce, body = envelope[1 : 1 + _NONCE_BYTES], envelope[1 + _NONCE_BYTES :]
    plaintext = None
    if envelope[:1] == _FORMAT and len(nonce) == _NONCE_BYTES:
        try:
            plaintext = AESGCM(key).decrypt(nonce, body, _bind(bound_to))
        except InvalidTag:
            plaintext = None
    if plaintext is None:
        raise Unsealable("the ciphertext does not open under this tenant and context")
    return plaintext


def key_id_of(public_key: bytes) -> str:
    """Names a signing key by its own bytes, so that a store set up anew never reuses the name of another key."""
    return base64.urlsafe_b64encode(hashlib.sha256(public_key).digest()[:12]).decode("ascii")


def _bind(parts: tuple[str, ...]) -> bytes:
    """Joins the parts with their lengths: ("ab", "c") and ("a", "bc") must not bind the same."""
    encoded = [part.encode() for part in parts]
    return b"".join(len(part).to_bytes(4, "big") + part for part in encoded)
