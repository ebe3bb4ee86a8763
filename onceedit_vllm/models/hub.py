"""Models by hub id, through huggingface_hub's own cache."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from onceedit_vllm.errors import ModelError
from onceedit_vllm.terminal import standard_error

_FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")


def fetch_from_hub(hub_id: str, *, progress: bool) -> Path:
    """The local snapshot of a hub model, downloaded if needed.

    Raises:
        ModelError: There is no such model, it is gated, or the hub cannot be reached.
    """
    import httpx
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        with _bars(shown=progress):
            return Path(snapshot_download(hub_id, allow_patterns=list(_FILES), tqdm_class=_bar_class()))
    except GatedRepoError as error:
        mend = "it is gated. Accept its terms on its page and log in with `hf auth login`."
        raise ModelError(f"{hub_id}: {mend}") from error
    except RepositoryNotFoundError as error:
        mend = (
            "the hub has no such model, or it is private. Check the spelling, or log in with `hf auth login`."
        )
        raise ModelError(
            f"{hub_id}: {mend} If you meant a folder, there is none of this name here."
        ) from error
    except HFValidationError as error:
        raise ModelError(f"{hub_id}: not a valid hub id ({error}).") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, httpx.HTTPError, OSError) as error:
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
