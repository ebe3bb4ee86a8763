"""Models by hub id, through huggingface_hub's own cache."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from onceedit_vllm.errors import ModelError
from onceedit_vllm.terminal import standard_error

_FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")


def fetch_from_hub(
    hub_id: str, *, progress: bool, revision: str | None = None, cache_dir: str | None = None
) -> Path:
    """The local snapshot of a hub model, downloaded if needed.

    Args:
        hub_id: ``owner/name``.
        progress: Show bars on standard error.
        revision: A branch, tag or commit; the main branch by default.
        cache_dir: Where snapshots are kept; huggingface_hub's own cache by default.

    Raises:
        ModelError: There is no such model or revision, it is gated, or the hub cannot be reached.
    """
    from huggingface_hub import snapshot_download

    files = list(_FILES)
    with _bars(shown=progress), _explained(hub_id, revision):
        found = snapshot_download(
            hub_id, revision=revision, cache_dir=cache_dir, allow_patterns=files, tqdm_class=_bar_class()
        )
        return Path(found)


@contextmanager
def _explained(hub_id: str, revision: str | None) -> Iterator[None]:
    """Turn what the hub's client raises into a :class:`~onceedit_vllm.errors.ModelError`."""
    import httpx
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        mend = "it is gated. Accept its terms on its page and log in with `hf auth login`."
        raise ModelError(f"{hub_id}: {mend}") from error
    except errors.RepositoryNotFoundError as error:
        mend = (
            "the hub has no such model, or it is private. Check the spelling, or log in with `hf auth login`."
        )
        raise ModelError(
            f"{hub_id}: {mend} If you meant a folder, there is none of this name here."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ModelError(
            f"{hub_id}: it has no revision {revision!r} on the hub; check the spelling."
        ) from error
    except errors.HFValidationError as error:
        raise ModelError(f"{hub_id}: not a valid hub id ({error}).") from error
    except (errors.LocalEntryNotFoundError, errors.HfHubHTTPError, httpx.HTTPError, OSError) as error:
        raise ModelError(
            f"{hub_id}: no folder of this name here, and the hub could not be reached for it. Check the "
            "network (and HF_ENDPOINT, HF_HUB_OFFLINE), or pass a folder with the model. "
            f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no details'})"
        ) from error


def _bar_class() -> type[Any]:
    """huggingface_hub's bar, on the real standard error."""
    from huggingface_hub.utils.tqdm import tqdm

    class Bar(tqdm):
        def __init__(self, *args: Any, **settings: Any) -> None:
            super().__init__(*args, **({"file": standard_error()} | settings))  # type: ignore[no-untyped-call]

    return Bar


@contextmanager
def _bars(*, shown: bool) -> Iterator[None]:
    """Switch huggingface_hub's bars off for a while if they are not wanted."""
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    silence = not shown and not are_progress_bars_disabled()
    if silence:
        disable_progress_bars()
    try:
        yield
    finally:
        if silence:
            enable_progress_bars()
