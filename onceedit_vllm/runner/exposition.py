"""Where an engine's metrics are shown: in the process's registry, and on a port if one is asked for."""

from __future__ import annotations

import weakref
from functools import cache
from typing import TYPE_CHECKING

from prometheus_client import start_http_server

from onceedit_vllm.errors import BadInputError
from onceedit_vllm.runner.meter import Meter
from onceedit_vllm.runner.metrics import EngineMetrics, Metrics

if TYPE_CHECKING:
    from wsgiref.simple_server import WSGIServer

    from vllm.config import VllmConfig


@cache
def process_metrics() -> Metrics:
    """The collectors of this process: a registry takes them once, and engines may share a process.

    Where ``PROMETHEUS_MULTIPROC_DIR`` is set, their values lie in its files, and vLLM's own ``/metrics``
    shows them beside those of all its processes.
    """
    return Metrics()


def open_meter(vllm_config: VllmConfig, port: int | None) -> Meter | None:
    """The meter of an engine; None on all but one of its workers, which count the same.

    Args:
        vllm_config: Names the served model and the engine, as vLLM's own metrics do.
        port: Also show the metrics there, of engine i on this port plus i.

    Raises:
        BadInputError: The port is taken, or may not be opened.
    """
    if vllm_config.parallel_config.world_size > 1:
        from vllm.distributed import get_tensor_model_parallel_rank

        if get_tensor_model_parallel_rank() > 0:
            return None
    engine = int(vllm_config.parallel_config.data_parallel_index)
    name = str(vllm_config.model_config.served_model_name)
    meter = Meter(EngineMetrics(process_metrics(), (name, str(engine))))
    if port is not None:
        server = _serve(port + engine)
        weakref.finalize(meter, _close, server)
    return meter


def _serve(port: int) -> WSGIServer:
    try:
        server, _ = start_http_server(port)
    except (OSError, OverflowError) as error:
        raise BadInputError(
            f"metrics_port: port {port} cannot be opened ({error}). Choose one that is free; engine i of "
            "several takes metrics_port plus i."
        ) from error
    return server


def _close(server: WSGIServer) -> None:
    server.shutdown()
    server.server_close()
