"""Credentials that the environment fixes: what is read, what is refused without being repeated, what is forgotten."""

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from keyswitch.vault.v1 import credential_pb2

from vault_service.__main__ import main
from vault_service.config import ConfigError, load_config

KEY = "sk-CANARY-0123456789abcdefghijklmnop-9f3c"
PREFIX = "KEYSWITCH_VAULT_FIXED_"
GOOD = {"CREDENTIALS": "anthropic", "ANTHROPIC_ORIGINS": "https://api.anthropic.com", "ANTHROPIC_KEY": KEY}
AWS = {"aws": {"accessKeyId": "AKIAIOSFODNN7EXAMPLE", "secretAccessKey": KEY, "region": "us-east-1"}}
GRANT = {"oauth": {"refreshToken": KEY, "tokenEndpoint": "https://login.example/token", "clientId": "x"}}


def environment(**settings: str) -> dict[str, str]:
    return {PREFIX + name: value for name, value in settings.items()}


def test_a_key_from_a_variable() -> None:
    (fixed,) = load_config(environment(**GOOD)).fixed
    assert str(fixed.name) == "deployment/credentials/anthropic"
    assert (fixed.draft.provider, fixed.draft.kind, fixed.draft.allowed_origins) == (
        "providers/anthropic",
        "API_KEY",
        ("https://api.anthropic.com",),
    )
    assert fixed.material.reveal() == credential_pb2.SecretMaterial(api_key=KEY).SerializeToString()
    assert (fixed.fingerprint, fixed.variable) == ("sk-…9f3c", "KEYSWITCH_VAULT_FIXED_ANTHROPIC_KEY")
    assert "CANARY" not in repr(load_config(environment(**GOOD)))


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_keys_from_files_as_containers_mount_them(tmp_path: Path, ending: str) -> None:
    (tmp_path / "key").write_bytes((KEY + ending).encode())
    (tmp_path / "pair").write_text(json.dumps(AWS))
    settings = {
        "CREDENTIALS": "zai-coding, cloud",
        "ZAI_CODING_PROVIDER": "zai",
        "ZAI_CODING_PLAN": "coding",
        "ZAI_CODING_ORIGINS": "https://api.z.ai, https://open.bigmodel.cn",
        "ZAI_CODING_KEY_FILE": str(tmp_path / "key"),
        "CLOUD_PROVIDER": "providers/bedrock",
        "CLOUD_ORIGINS": "https://bedrock-runtime.us-east-1.amazonaws.com",
        "CLOUD_MATERIAL_FILE": str(tmp_path / "pair"),
    }
    plan, cloud = load_config(environment(**settings)).fixed
    assert plan.material.reveal() == credential_pb2.SecretMaterial(api_key=KEY).SerializeToString()
    assert (plan.draft.provider, plan.draft.plan, len(plan.draft.allowed_origins)) == ("providers/zai", "coding", 2)
    assert (cloud.draft.provider, cloud.draft.kind, cloud.fingerprint) == ("providers/bedrock", "AWS", "AKIA…MPLE")


BAD: dict[str, tuple[dict[str, str], str]] = {
    "a space in the key": ({"ANTHROPIC_KEY": f"{KEY} x"}, "ANTHROPIC_KEY holds spaces"),
    "a line break in the key": ({"ANTHROPIC_KEY": f"{KEY}\n"}, "ANTHROPIC_KEY holds spaces"),
    "quotes around the key": ({"ANTHROPIC_KEY": f'"{KEY}"'}, "ANTHROPIC_KEY holds quotes"),
    "a key beyond ASCII": ({"ANTHROPIC_KEY": f"{KEY}ä"}, "ANTHROPIC_KEY holds characters"),
    "bytes that are no text": ({"ANTHROPIC_KEY": f"{KEY}\udcff"}, "ANTHROPIC_KEY holds characters"),
    "a short key": ({"ANTHROPIC_KEY": "CANARY"}, "ANTHROPIC_KEY is too short"),
    "a long key": ({"ANTHROPIC_KEY": "CANARY" * 1000}, "ANTHROPIC_KEY is too long"),
    "an empty key": ({"ANTHROPIC_KEY": ""}, "must be set, and not be empty; 0 are"),
    "two keys": ({"ANTHROPIC_KEY_FILE": "/run/CANARY"}, "must be set, and not be empty; 2 are"),
    "no origin": ({"ANTHROPIC_ORIGINS": ""}, "ANTHROPIC_ORIGINS must be"),
    "an origin with a path": ({"ANTHROPIC_ORIGINS": "https://CANARY/v1"}, "ANTHROPIC_ORIGINS must be"),
    "an origin without a scheme": ({"ANTHROPIC_ORIGINS": "canary"}, "ANTHROPIC_ORIGINS must be"),
    "no provider's name": ({"ANTHROPIC_PROVIDER": "CANARY"}, "ANTHROPIC_PROVIDER must be"),
    "an organization's provider": (
        {"ANTHROPIC_PROVIDER": "organizations/canary/providers/x"},
        "ANTHROPIC_PROVIDER must be",
    ),
    "a plan with a space": ({"ANTHROPIC_PLAN": "CANARY coding"}, "ANTHROPIC_PLAN must match"),
    "an id in capitals": ({"CREDENTIALS": "CANARY"}, "CREDENTIALS must be ids"),
    "an id with a path": ({"CREDENTIALS": "anthropic,../canary"}, "CREDENTIALS must be ids"),
    "an id twice": ({"CREDENTIALS": "anthropic,anthropic"}, "CREDENTIALS names a credential twice"),
    "a credential that is not listed": ({"CREDENTIALS": ""}, "is no setting of this service"),
    "a misspelt variable": ({"ANTHROPIC_KEYS": KEY}, "FIXED_ANTHROPIC_KEYS is no setting of this service"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_cannot_be_stops_the_start_and_is_not_repeated(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    changes, problem = BAD[what]
    given = environment(**{**GOOD, **changes})
    with pytest.raises(ConfigError) as caught:
        load_config(given)
    assert problem in str(caught.value)
    assert main(given) == 78
    said = capsys.readouterr()
    assert problem in said.err
    assert "canary" not in (said.out + said.err).replace("KEYSWITCH_VAULT_FIXED_", "").lower()
    assert f"{PREFIX}ANTHROPIC_KEY" not in given, "the key is taken away although nothing starts"


FILES: dict[str, tuple[str, bytes | None, str]] = {
    "no file": ("KEY_FILE", None, "cannot be read: No such file"),
    "a file of nothing": ("KEY_FILE", b"", "is too short"),
    "a file of two lines": ("KEY_FILE", f"{KEY}\n\n".encode(), "holds spaces"),
    "a file beyond ASCII": ("KEY_FILE", KEY.encode() + b"\xff", "more than plain ASCII"),
    "a large file": ("KEY_FILE", b"k" * 70_000, "of more than 65536 bytes"),
    "a key where JSON belongs": ("MATERIAL_FILE", KEY.encode(), "no SecretMaterial as JSON"),
    "another message": ("MATERIAL_FILE", json.dumps({"apiKeys": KEY}).encode(), "no SecretMaterial as JSON"),
    "JSON that nests without end": ("MATERIAL_FILE", b'{"aws":' * 9000, "no SecretMaterial as JSON"),
    "material of nothing": ("MATERIAL_FILE", b"{}", "is missing"),
    "half a pair": ("MATERIAL_FILE", json.dumps({"aws": {"accessKeyId": KEY}}).encode(), "holds characters"),
    "a grant": ("MATERIAL_FILE", json.dumps(GRANT).encode(), "among the deployment's token endpoints"),
}


@pytest.mark.parametrize("what", FILES)
def test_what_a_file_cannot_be_stops_the_start_and_is_not_repeated(what: str, tmp_path: Path) -> None:
    ending, content, problem = FILES[what]
    if content is not None:
        (tmp_path / "secret").write_bytes(content)
    given = {**GOOD, "ANTHROPIC_KEY": "", f"ANTHROPIC_{ending}": str(tmp_path / "secret")}
    with pytest.raises(ConfigError) as caught:
        load_config(environment(**given))
    assert f"FIXED_ANTHROPIC_{ending}" in str(caught.value)
    assert problem in str(caught.value)
    assert "CANARY" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_grant_renews_itself_and_is_not_fixed(tmp_path: Path) -> None:
    (tmp_path / "grant").write_text(json.dumps(GRANT))
    given = {**GOOD, "ANTHROPIC_KEY": "", "ANTHROPIC_MATERIAL_FILE": str(tmp_path / "grant")}
    allowed = {"KEYSWITCH_VAULT_TOKEN_ENDPOINTS": "https://login.example"}
    with pytest.raises(ConfigError, match="renews itself"):
        load_config(environment(**given) | allowed)


def test_other_variables_stay_where_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    given = environment(**GOOD) | {"KEYSWITCH_VAULT_TLS_KEY": "/srv/key.pem", "GRPC_TRACE": "http", "OTHER_KEY": "x"}
    assert main(given) == 78
    assert given.keys() == environment(**GOOD).keys() - {f"{PREFIX}ANTHROPIC_KEY"} | {
        "KEYSWITCH_VAULT_TLS_KEY",
        "GRPC_TRACE",
        "OTHER_KEY",
    }
    assert "GRPC_TRACE" in capsys.readouterr().err


PROGRAM = """
import os, pathlib
from vault_service.__main__ import forget_keys
before = pathlib.Path("/proc/self/environ").read_bytes()
forget_keys(os.environ)
after = pathlib.Path("/proc/self/environ").read_bytes()
known = "KEYSWITCH_VAULT_FIXED_ANTHROPIC_KEY" in os.environ
print(b"CANARY" in before, b"CANARY" in after, known, len(before) == len(after))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_a_key_is_gone_from_what_the_system_shows_of_the_process() -> None:
    assert ctypes.CDLL(None).getenv(f"{PREFIX}ANTHROPIC_KEY".encode()) == 0
    paths = os.pathsep.join(str(Path(__file__).parents[3] / one) for one in (".", "protos/gen/python"))
    given = {"PATH": os.environ["PATH"], "PYTHONPATH": paths, **environment(**GOOD)}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=given, check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["True", "False", "False", "True"]
