"""How a key comes in: standard input, a hidden prompt or a file. Never an argument, which others can read."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from keyswitch.vault.v1 import credential_pb2

from keyswitch_cli import key_grant, key_pair
from keyswitch_cli.problem import Problem

FromFile = Annotated[
    Path | None,
    typer.Option("--from-file", help="A file that holds the key; `-` is standard input.", show_default=False),
]

AwsRegion = Annotated[
    str,
    typer.Option(
        help="The key is an AWS key pair of this region: a section of AWS's credentials file, or AWS's JSON.",
        show_default=False,
    ),
]


def read_key(from_file: Path | None, aws_region: str = "") -> credential_pb2.SecretMaterial:
    """The key as it was given, but for the line end that a file or a pipe puts after it. With a region a key pair.

    Whatever else is wrong with it (a space, a quote, a second line) the service says, the same to every client.
    """
    if from_file is not None and str(from_file) != "-":
        try:
            text = from_file.read_text(encoding="utf-8")
        except OSError as error:
            raise Problem(f"{from_file} cannot be read: {error.strerror}.") from None
        except UnicodeDecodeError:
            raise Problem(f"{from_file} is not text, so it holds no API key.") from None
    elif from_file is None and sys.stdin.isatty() and aws_region:
        return key_pair.prompt(aws_region)
    elif from_file is None and sys.stdin.isatty():
        text = typer.prompt("Key (not shown)", hide_input=True, err=True)
    else:
        text = sys.stdin.read()
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise Problem(
            "No key was given.", advice="Paste it at the prompt, pipe it in, or name a file with --from-file."
        )
    if aws_region:
        return key_pair.parse(text, aws_region)
    return key_grant.parse(text) if text.startswith("{") else credential_pb2.SecretMaterial(api_key=text)
