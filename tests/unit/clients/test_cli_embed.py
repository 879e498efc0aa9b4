"""keyswitch embed and keyswitch count against scripted services."""

from __future__ import annotations

import json

from keyswitch.router.v1 import (
    completion_service_pb2,
    embedding_service_pb2,
    model_service_pb2,
    receipt_pb2,
    resolution_pb2,
)

from tests.unit.clients.cli_terminal import Terminal

RESOLUTION = resolution_pb2.Resolution(model="practice/embed", provider="providers/practice")


def test_embed_prints_a_list_per_text_and_the_receipt_apart(terminal: Terminal) -> None:
    vectors = [embedding_service_pb2.Embedding(values=[0.5, -1.0]), embedding_service_pb2.Embedding(values=[1.0, 0.0])]
    terminal.services.answers["Embed"] = embedding_service_pb2.EmbedResponse(
        response_id="r-7", resolution=RESOLUTION, embeddings=vectors, receipt=receipt_pb2.Receipt(response_id="r-7")
    )
    result = terminal.run("embed", "-m", "embed", "--dimensions", "2", "--task", "query", given="one\n\ntwo\n")
    assert [json.loads(line) for line in result.stdout.splitlines()] == [[0.5, -1.0], [1.0, 0.0]]
    assert "keyswitch receipt r-7" in result.stderr
    spec = terminal.services.asked("Embed").spec
    assert [item.text for item in spec.inputs] == ["one", "two"]
    assert (spec.model, spec.dimensions, spec.task) == ("embed", 2, embedding_service_pb2.EMBEDDING_TASK_QUERY)
    assert terminal.run("embed", "x", "--task", "poem").exit_code == 2
    assert terminal.run("embed", given="\n").exit_code == 2


def test_count_says_who_counted(terminal: Terminal) -> None:
    answer = completion_service_pb2.CountTokensResponse(resolution=RESOLUTION, input_tokens=42)
    terminal.services.answers["CountTokens"] = answer
    result = terminal.run("count", "How many?", "--system", "Be brief.")
    assert result.stdout == "42\n"
    assert "counted by practice, for practice/embed" in result.stderr
    assert len(terminal.services.asked("CountTokens").call.spec.messages) == 2
    answer.is_estimate = True
    assert "estimated by the router" in terminal.run("count", "-", given="piped").stderr
    assert json.loads(terminal.run("count", "x", "--json").stdout)["isEstimate"] is True


def test_models_that_embed_are_asked_for(terminal: Terminal) -> None:
    terminal.services.answers["ListModels"] = model_service_pb2.ListModelsResponse(
        models=[model_service_pb2.Model(model="practice/embed")]
    )
    assert "practice/embed" in terminal.run("models", "--embedding").stdout
    assert terminal.services.asked("ListModels").purpose == model_service_pb2.MODEL_PURPOSE_EMBEDDING
