"""The errors a user can meet. Every message names the input, what is wrong, and what to do next."""

from __future__ import annotations


class OnceEditError(Exception):
    """Base of every error raised on purpose by this package. The CLI exits with 1 on it."""


class BadInputError(OnceEditError, ValueError):
    """An argument, a file or a request the user gave cannot be used. The CLI exits with 2 on it."""


class WireError(OnceEditError):
    """A message between an engine and a plug-in host cannot be read."""


class HostError(OnceEditError):
    """A plug-in host cannot be started, found or attached to."""


class PackError(OnceEditError):
    """An EditPack folder is missing, damaged, truncated or of a foreign format."""


class ModelError(OnceEditError):
    """A model cannot be found, fetched, loaded or used as a plug-in or an LLM."""


class KVCacheFullError(ModelError):
    """A text does not fit into the plug-in's KV cache beside the others. Nothing was read or changed.

    Attributes:
        slot: The text's slot: close it, or another, and take the step again.
    """

    def __init__(self, slot: int, message: str) -> None:
        super().__init__(message)
        self.slot = slot


class AlignmentError(OnceEditError):
    """Two vocabularies cannot be aligned, or a cached alignment does not fit its models."""
