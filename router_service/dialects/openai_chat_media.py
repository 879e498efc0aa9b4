"""Media in the words of OpenAI chat completions: images, sound, files, and text files as text."""

import base64

from router_service.core.content import Media
from router_service.dialects.base import Quirks
from router_service.dialects.urls import make_data_url
from router_service.dialects.writing import Body, Notices, wrong

_AUDIO_FORMATS = {
    "audio/wav": "wav",
    "audio/x-wav": "wav",
    "audio/wave": "wav",
    "audio/mpeg": "mp3",
    "audio/mp3": "mp3",
}
_TEXT_TYPES = frozenset({"application/json", "application/xml", "application/yaml", "application/x-yaml"})


def media_part(media: Media, path: str, quirks: Quirks, notices: Notices) -> Body:
    """One piece of media in a user message."""
    media_type = media.media_type.lower()
    if media.enable_citations:
        notices.ignore(f"{path}.media.enable_citations", "This wire has no citations of documents.")
    if media_type.startswith("image/"):
        return _image(media)
    if media_type.startswith("audio/"):
        return _audio(media, media_type, path)
    if media_type.startswith("video/"):
        if not quirks.is_router_like:
            raise wrong(path, "This provider takes no video.")
        return {"type": "video_url", "video_url": {"url": _url(media)}}
    if media_type.startswith("text/") or media_type in _TEXT_TYPES:
        return _text_file(media, path)
    return _file(media, media_type, path, quirks)


def assistant_image(media: Media, path: str, quirks: Quirks, notices: Notices) -> Body | None:
    """An image that the model made, going back. Only router-like servers take it in the assistant's own message."""
    if quirks.is_router_like and media.media_type.startswith("image/"):
        return {"type": "image_url", "image_url": {"url": _url(media)}}
    notices.drop(f"{path}.media", "This provider does not take back media that a model made.")
    return None


def _url(media: Media) -> str:
    return media.uri or make_data_url(media.media_type, media.data or b"")


def _image(media: Media) -> Body:
    image = {"url": _url(media)}
    if media.detail is not None:
        image["detail"] = media.detail.value
    return {"type": "image_url", "image_url": image}


def _audio(media: Media, media_type: str, path: str) -> Body:
    sound = _AUDIO_FORMATS.get(media_type)
    if sound is None or media.data is None:
        raise wrong(path, "This wire takes sound only as the bytes of a wav or mp3 file.")
    return {
        "type": "input_audio",
        "input_audio": {"data": base64.b64encode(media.data).decode("ascii"), "format": sound},
    }


def _text_file(media: Media, path: str) -> Body:
    """The wire takes no text files; their text, under their name, is what a model reads anyway."""
    if media.data is None:
        raise wrong(path, "This wire takes text documents only as bytes, not by URL.")
    try:
        text = media.data.decode("utf-8")
    except UnicodeDecodeError:
        raise wrong(path, "The text document is not UTF-8.") from None
    return {"type": "text", "text": f"{media.filename}\n\n{text}" if media.filename else text}


def _file(media: Media, media_type: str, path: str, quirks: Quirks) -> Body:
    if media_type != "application/pdf":
        raise wrong(path, f"This wire takes no documents of type {media.media_type[:64]}.")
    if media.data is None and not quirks.is_router_like:
        raise wrong(path, "This wire takes documents only as bytes, not by URL.")
    return {"type": "file", "file": {"filename": media.filename or "document.pdf", "file_data": _url(media)}}
