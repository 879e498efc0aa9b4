"""What the command itself finds wrong, and the exit codes that it promises."""

from __future__ import annotations

EXIT_FAULT = 1
EXIT_USAGE = 2
EXIT_IDENTITY = 3
EXIT_REFUSED = 4
EXIT_UNAVAILABLE = 5
EXIT_INTERRUPTED = 130


class Problem(Exception):
    """Something that was wrong before or without a service: what happened, and what to do next."""

    def __init__(self, message: str, *, advice: str = "", exit_code: int = EXIT_USAGE) -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice
        self.exit_code = exit_code
