"""The practice provider's embeddings: real numbers that depend on a text's words and on nothing else."""

from __future__ import annotations

import base64
import hashlib
import math
import struct
from typing import Any, Final

from deploy.local.practice_answers import Refusal

EMBEDDING_MODEL: Final = "embed"
DIMENSIONS: Final = 256
MOST_INPUTS: Final = 2048


def embed(text: str, dimensions: int) -> list[float]:
    """A vector of length 1: texts that share words are near each other."""
    vector = [0.0] * dimensions
    for word in text.lower().split() or [text]:
        digest = hashlib.sha256(word.encode()).digest()
        for start in range(0, 16, 4):
            (place,) = struct.unpack_from("!I", digest, start)
            vector[place % dimensions] += 1.0 if digest[16 + start] % 2 else -1.0
    length = math.sqrt(sum(number * number for number in vector))
    return [number / length for number in vector] if length else [1.0, *vector[1:]]


def answer_embeddings(body: object) -> dict[str, Any]:
    """The answer of the OpenAI wire."""
    if not isinstance(body, dict) or body.get("model") != EMBEDDING_MODEL:
        raise Refusal(404, f"The only practice model that embeds is {EMBEDDING_MODEL}.", "model_not_found")
    given = body.get("input")
    texts = [given] if isinstance(given, str) else given
    if (
        not isinstance(texts, list)
        or not 1 <= len(texts) <= MOST_INPUTS
        or not all(isinstance(text, str) and text for text in texts)
    ):
        raise Refusal(400, f"input is a text, or from 1 to {MOST_INPUTS} of them, none empty.", "invalid_input")
    dimensions = body.get("dimensions", DIMENSIONS)
    if not isinstance(dimensions, int) or not 1 <= dimensions <= DIMENSIONS:
        raise Refusal(400, f"dimensions is from 1 to {DIMENSIONS}.", "invalid_dimensions")
    vectors = [embed(text, dimensions) for text in texts]
    words = sum(len(text.split()) for text in texts)
    as_base64 = body.get("encoding_format") == "base64"
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": _packed(vector) if as_base64 else vector}
            for index, vector in enumerate(vectors)
        ],
        "model": EMBEDDING_MODEL,
        "usage": {"prompt_tokens": words, "total_tokens": words},
    }


def _packed(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
