"""Every shared recording of Ollama's own chat, against its own client's types."""

import json

import pytest
from ollama import ChatResponse

from router_service.core.content import Reasoning, Text, ToolCall
from router_service.core.events import FinishReason
from router_service.dialects.base import Framing
from router_service.dialects.ollama_chat import OllamaChat
from tests.suites.dialect_suite import Recording, check_cuts, check_prefixes, is_whole_json, recordings, run

DIALECT = OllamaChat()
RECORDINGS = recordings("ollama-chat")
NEEDS_RECORDINGS = pytest.mark.skipif(not RECORDINGS, reason="no recordings: set KEYSWITCH_RECORDINGS")
LIMIT_OF_CUTS = 2000


@NEEDS_RECORDINGS
def test_all_recordings_are_here() -> None:
    assert len(RECORDINGS) == 6


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda recording: recording.id)
def test_the_answer_is_what_the_client_makes_of_it(recording: Recording) -> None:
    lines = [ChatResponse.model_validate(json.loads(line)) for line in recording.body.splitlines() if line.strip()]
    outcome = run(DIALECT, recording.body)
    answer = outcome.answer
    assert answer is not None
    assert answer.finish is not None
    kinds = [part.kind for part in answer.parts]
    last = lines[-1]
    calls = [call for line in lines for call in line.message.tool_calls or ()]
    assert "".join(kind.text for kind in kinds if isinstance(kind, Text)) == "".join(
        line.message.content or "" for line in lines
    )
    assert "".join(kind.text for kind in kinds if isinstance(kind, Reasoning)) == "".join(
        line.message.thinking or "" for line in lines
    )
    assert [(kind.name, json.loads(kind.arguments_json)) for kind in kinds if isinstance(kind, ToolCall)] == [
        (call.function.name, dict(call.function.arguments)) for call in calls
    ]
    assert answer.identity.model == last.model
    assert answer.finish.provider_reason == last.done_reason
    assert answer.finish.reason is (FinishReason.TOOL_CALLS if calls else FinishReason.STOP)
    used = answer.usage
    counted = (used.input_tokens, used.output_tokens) if used is not None else (None, None)
    assert counted == (last.prompt_eval_count, last.eval_count)
    if not is_whole_json(recording.body, Framing.JSON_LINES):
        check_cuts(DIALECT, recording.body, outcome, limit=LIMIT_OF_CUTS)
        check_prefixes(DIALECT, recording.body, lambda prefix: b'"done":true' in prefix)
