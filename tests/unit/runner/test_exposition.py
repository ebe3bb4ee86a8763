"""A port of our own."""

from __future__ import annotations

import gc
import socket
import urllib.request
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import REGISTRY

from onceedit_vllm.errors import BadInputError
from onceedit_vllm.runner.exposition import open_meter, process_metrics


def vllm_config(engine: int = 0) -> Any:
    return SimpleNamespace(
        parallel_config=SimpleNamespace(data_parallel_index=engine, world_size=1),
        model_config=SimpleNamespace(served_model_name="exposition"),
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def test_metrics_on_a_port_of_their_own_until_the_engine_is_gone() -> None:
    port = free_port()
    meter = open_meter(vllm_config(), port)
    assert meter is not None
    meter.observe("alpha", 0.5)
    meter.show()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
        text = answer.read().decode()
    assert 'onceedit:alpha_count{engine="0",model_name="exposition"} 1.0' in text
    del meter
    gc.collect()
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what was answered may linger
        probe.bind(("", port))


def test_engines_of_a_process_share_the_registry_and_take_ports_side_by_side() -> None:
    port = free_port()
    first, second = open_meter(vllm_config(0), None), open_meter(vllm_config(1), port - 1)
    for meter, alpha in ((first, 0.25), (second, 0.75)):
        assert meter is not None
        meter.observe("alpha", alpha)
        meter.show()
    assert process_metrics() is process_metrics()
    labels = {"model_name": "exposition", "engine": "1"}
    assert REGISTRY.get_sample_value("onceedit:alpha_sum", labels) == 0.75
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
        assert answer.status == 200


def test_a_taken_port_is_an_error_of_start_up() -> None:
    with socket.socket() as listening:
        listening.bind(("", 0))
        listening.listen()
        port = listening.getsockname()[1]
        with pytest.raises(BadInputError, match=rf"metrics_port: port {port} cannot be opened .*in use"):
            open_meter(vllm_config(), port)
    with pytest.raises(BadInputError, match="port 65536"):
        open_meter(vllm_config(1), 65535)
