"""The one error of files."""

from __future__ import annotations


class AudioFileError(RuntimeError):
    """A file cannot be read or written; the message begins with its path."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.path = path

    def __reduce__(self) -> tuple[type[AudioFileError], tuple[str, str]]:
        return AudioFileError, (self.path, str(self)[len(self.path) + 2 :])
