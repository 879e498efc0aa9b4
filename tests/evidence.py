"""docs/providers-evidence.md, generated: what each provider's column rests on. `python -m tests.evidence` writes it.

Nothing here is opinion: a recording counts where the request or the decoded answer holds the thing, a fixture where its
request was checked against the vendor's own types. Needs the recordings.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from router_service.catalog.defaults import load_built_in, load_documents
from router_service.catalog.loader import load_snapshot
from router_service.core.content import Media, Reasoning, ToolCall
from router_service.core.fold import Answer
from router_service.dialects.base import Carrier, Quirks
from router_service.dialects.registry import DIALECTS
from tests.suites.dialect_fixtures import fixtures
from tests.suites.dialect_suite import QUIRKS, Recording, is_whole_json, recordings, run
from tests.unit.catalog.test_provider_errors import ROWS, WAITS
from tests.unit.dialects.test_recordings_carriers import is_other

TARGET = Path(__file__).parents[1] / "docs" / "providers-evidence.md"

SAME_SERVICE: Mapping[str, tuple[str, ...]] = {
    "azure-openai": ("azure",),
    "ollama-native": ("ollama",),
    "vertex-project": ("vertex",),
    "llama-cpp": ("llama.cpp",),
    "vllm": ("local-mlx-or-vllm",),
}
"""Providers whose recordings go by other names."""

CARRIED: Mapping[str, tuple[str, Quirks]] = {
    "bedrock-anthropic": ("bedrock-invoke", Quirks(carrier=Carrier.BEDROCK)),
    "vertex-anthropic": ("vertex-anthropic", Quirks(carrier=Carrier.VERTEX)),
}
"""Providers that carry the Anthropic wire inside another one: their recordings, and the quirks to read them with."""

_SERVED = ("stream", "structured output", "errors")
SERVERS: Mapping[str, tuple[str, ...]] = {
    "litellm": ("stream", "tools", "errors"),
    "llama-cpp": _SERVED,
    "ollama": _SERVED,
    "ollama-native": _SERVED,
}
"""What test_model_servers.py (Ollama where it was built) and test_litellm_proxy.py try on the thing itself."""

TABLES: Mapping[str, Sequence[tuple[Any, ...]]] = {"errors": ROWS, "reset times": WAITS}
"""Documented errors, as data; by the provider that each row begins with."""

KEY_TESTS = Path(__file__).parent / "unit" / "router" / "test_key_test.py"


@dataclass(frozen=True)
class Evidence:
    """One exchange: a recording, or a fixture of the dialect."""

    request: str
    answer: Answer | None
    is_stream: bool
    is_error: bool = False
    has_reset: bool = False


def _parts(answer: Answer | None, kind: type[object]) -> int:
    return sum(isinstance(part.kind, kind) for part in answer.parts) if answer is not None else 0


def _asks(pattern: str) -> Callable[[Evidence], bool]:
    found = re.compile(pattern)
    return lambda evidence: not evidence.is_error and found.search(evidence.request) is not None


_asks_image = _asks(r'"image_url"|"input_image"|"type": ?"image"|image/(png|jpe?g|webp)|"image": ?\{')
_asks_document = _asks(r'application/pdf|"type": ?"(document|file|input_file)"|"document": ?\{')
_asks_schema = _asks(r'"json_schema"|responseJsonSchema|responseSchema|response_json_schema|output_format|outputConfig')


def _is_cached(evidence: Evidence) -> bool:
    usage = evidence.answer.usage if evidence.answer is not None else None
    return usage is not None and bool(usage.cache_read_tokens or usage.cache_write_tokens)


COLUMNS: Mapping[str, Callable[[Evidence], bool]] = {
    "stream": lambda one: one.is_stream and one.answer is not None,
    "tools": lambda one: _parts(one.answer, ToolCall) > 0,
    "parallel tools": lambda one: _parts(one.answer, ToolCall) > 1,
    "reasoning": lambda one: _parts(one.answer, Reasoning) > 0,
    "images": lambda one: _asks_image(one) or _parts(one.answer, Media) > 0,
    "documents": _asks_document,
    "cache": _is_cached,
    "structured output": _asks_schema,
    "errors": lambda one: one.is_error,
    "reset times": lambda one: one.has_reset,
}


def _read(dialect_name: str, recording: Recording, quirks: Quirks = QUIRKS) -> Evidence:
    dialect = DIALECTS[dialect_name]
    if recording.status != 200:
        fault = dialect.decode_error(recording.status, recording.headers, recording.body)
        return Evidence("", None, is_stream=False, is_error=True, has_reset=fault.retry_after_seconds is not None)
    outcome = run(dialect, recording.body, quirks=quirks)
    request = json.dumps(recording.request.get("body", ""))
    is_stream = not is_whole_json(recording.body, dialect.framing)
    text = request.replace('\\"', '"')
    return Evidence(text, outcome.answer, is_stream, is_error=outcome.answer is None)


def _fixture_evidence(dialect: str) -> Iterator[Evidence]:
    for case in fixtures(dialect):
        outcome = run(DIALECTS[dialect], case.body)
        yield Evidence(json.dumps(case.request), outcome.answer, case.is_stream, is_error=outcome.answer is None)


def collect() -> Mapping[tuple[str, str], Sequence[Evidence]]:
    """All recordings, by dialect and by the name that the recordings give the service."""
    found: dict[tuple[str, str], list[Evidence]] = {}
    for dialect in DIALECTS:
        for recording in recordings(dialect.replace("_", "-")):
            found.setdefault((dialect, recording.provider), []).append(_read(dialect, recording))
    wire = "anthropic_messages"
    for provider, (folder, quirks) in CARRIED.items():
        carried = [recording for recording in recordings(folder) if not is_other(recording)]
        found[wire, provider] = [_read(wire, recording, quirks) for recording in carried]
    return found


def _cell(name: str, provider: str, recorded: Sequence[Evidence], typed: Sequence[Evidence]) -> str:
    holds = COLUMNS[name]
    kinds = ["server"] if name in SERVERS.get(provider, ()) else []
    if count := sum(map(holds, recorded)):
        kinds.append(f"recording ({count})")
    if rows := sum(row[0] == provider for row in TABLES.get(name, ())):
        kinds.append(f"table ({rows})")
    if not kinds:
        kinds.append("fixture" if any(map(holds, typed)) else "documentation")
    return ", ".join(kinds)


def _sources() -> Mapping[str, str]:
    return {
        provider: f"[{document.value['checked']}]({document.value['source']})"
        for _, document in load_documents()
        for provider in document.value.get("providers", ())
    }


def _key_test(provider: str) -> str:
    return "scripted" if f'"{provider}"' in KEY_TESTS.read_text(encoding="utf-8") else "documentation"


def write_page() -> str:
    """The page."""
    snapshot = load_snapshot("", source="evidence")
    recorded = collect()
    typed = {dialect: list(_fixture_evidence(dialect)) for dialect in DIALECTS}
    rows: set[tuple[str, str]] = {(key, entry["dialect"]) for key, entry in load_built_in().providers.items()}
    rows |= {
        (endpoint.provider, endpoint.dialect or snapshot.providers[endpoint.provider].dialect)
        for model in snapshot.models.values()
        for endpoint in model.endpoints
    }
    heads = ("provider", "dialect", *COLUMNS, "key test", "data checked")
    lines = [*_HEAD, f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    sources = _sources()
    for provider, dialect in sorted(rows):
        names = SAME_SERVICE.get(provider, (provider,))
        mine = [one for name in names for one in recorded.get((dialect, name), ())]
        cells = [_cell(name, provider, mine, typed[dialect]) for name in COLUMNS]
        lines.append(f"| {provider} | {dialect} | {' | '.join(cells)} | {_key_test(provider)} | {sources[provider]} |")
    return "\n".join(lines) + "\n"


_HEAD = (
    "# What the providers rest on",
    "",
    "Generated by `python -m tests.evidence` from the recordings, the fixtures and the catalog; a test keeps it fresh.",
    "**Nothing in it was tried on a live service.** What people run themselves was tried on the thing itself:",
    "llama.cpp's server and Ollama 0.17.4 with a model of 135 million parameters, and a LiteLLM proxy 1.106.12 with a",
    "scripted provider behind it. vLLM was not: it needs a build of PyTorch that Python's own index does not have.",
    "Whole round trips to aimock, a mock that others keep, are made on six wires, and what is recorded is read as the",
    "SDKs of OpenAI, Anthropic, Google and AWS read it.",
    "",
    "* *server*: tests talk to the thing itself.",
    "* *recording (n)*: so many answers that this provider gave, recorded by others, are read as they should be.",
    "* *table (n)*: so many of its documented errors have a row in a test: status, body, reason, cause or wait.",
    "* *fixture*: no recording of this provider has it, but a fixture of its wire does, of the project; its requests",
    "  are checked against the vendor's published types. A provider that differs from its wire would not be noticed.",
    "* *scripted*: the test of a key runs against a provider that a test scripts; it answers as the vendor documents.",
    "* *documentation*: only what the vendor writes.",
    "* *data checked*: when the file with its addresses, key test and errors was compared with the page that it names.",
    "",
)


def main() -> None:
    """Writes the page."""
    TARGET.write_text(write_page(), encoding="utf-8")


if __name__ == "__main__":
    main()
