"""The libraries' own chatter, switched off unless the user set it or is debugging."""

from __future__ import annotations

import logging
import os
import sys
import warnings

from onceedit_vllm.cli.guard import debugging

_VARIABLES = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONWARNINGS": "ignore",
}


def quiet_logs() -> None:
    """Before anything is imported: levels by environment variables, which child processes inherit."""
    if debugging():
        return
    for name, value in _VARIABLES.items():
        os.environ.setdefault(name, value)
    # vLLM warns about Triton before it has configured its logger; Python would print that bare.
    logging.getLogger("vllm").addHandler(logging.NullHandler())
    if not sys.warnoptions:
        warnings.simplefilter("ignore")


def quiet_bars() -> None:
    """Switch transformers' bars off: our own say more. Imports transformers."""
    if debugging():
        return
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
