"""The jobs that people run, called in one process."""

from typing import Any


def of_configuration(cls: Any, **settings: Any) -> Any:
    """A job's configuration; what an earlier run left half done goes on."""
    return cls.from_mapping({"resume": True, **settings})


def succeeded(code: int) -> None:
    """Stop where a job did not."""
    if code:
        raise SystemExit(f"a job ended with exit code {code}; its log says why")
