"""A private key on its way into Vault: wrapped so that only Vault's transit engine can open it."""

import base64
import os

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.keywrap import aes_key_wrap_with_padding
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_public_key

from vault_service.store.store import StoreError


def wrap_for_import(private: Ed25519PrivateKey, wrapping_key_pem: bytes) -> str:
    """Gives the base64 of an AES key under Vault's RSA key, and of the PKCS #8 key under that AES key (RFC 5649)."""
    wrapping_key = load_pem_public_key(wrapping_key_pem)
    if not isinstance(wrapping_key, rsa.RSAPublicKey):
        raise StoreError("Vault's wrapping key is no RSA key")
    ephemeral = os.urandom(32)
    oaep = padding.OAEP(mgf=padding.MGF1(hashes.SHA256()), algorithm=hashes.SHA256(), label=None)
    plain = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    wrapped = wrapping_key.encrypt(ephemeral, oaep) + aes_key_wrap_with_padding(ephemeral, plain)
    return base64.b64encode(wrapped).decode("ascii")
