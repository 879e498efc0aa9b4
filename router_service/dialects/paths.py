"""A model's name as a piece of a path."""

from urllib.parse import quote

from router_service.dialects.writing import wrong


def model_segment(model: str, safe: str = "") -> str:
    """A model's id, or its ARN, as one segment of a path: colons and slashes are escaped, as AWS's clients do."""
    if not model.strip("."):
        raise wrong("model", "This is no name of a model.")
    return quote(model, safe=safe)
