"""``onceedit serve`` with the plug-in in a host of Ray: vLLM's ``--host`` stays the address to listen at."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

openai = pytest.importorskip("openai", reason="openai is not installed")
pytest.importorskip("ray", reason="Ray is not installed")

from tests.e2e.conftest import EDITS, OUTSIDE  # noqa: E402
from tests.e2e.http_server import Server  # noqa: E402

pytestmark = [pytest.mark.e2e, pytest.mark.alone]

ONCEEDIT = str(Path(sys.executable).parent / "onceedit")
NAME = "e2e-serve"


@pytest.fixture(scope="module")
def server(llm_dir: Path, pack_dir: Path, work: Path) -> Iterator[Server]:
    """Its own settings of the host go beside the rest of the group."""
    ours = {"cache_dir": str(work / "cache"), "plugin": {"device": "cpu", "cpus": [1]}}
    command = [
        ONCEEDIT, "serve", str(llm_dir), "--pack", str(pack_dir), "--served-model-name", "toy",
        "--max-model-len", "256", "--enforce-eager", "--dtype", "float32", "--allow-pack-updates",
        "--plugin-host", "ray", "--plugin-name", NAME,
        "--additional-config", json.dumps({"onceedit": ours}),
    ]  # fmt: skip
    with Server(command, work / "serve-ray.log") as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def complete(client: Any, prompt: str, **options: Any) -> str:
    settings = {"temperature": 0, "max_tokens": 12, **options}
    return str(client.completions.create(model="toy", prompt=prompt, **settings).choices[0].text)


def test_the_edits_come_from_the_host_of_that_name(client: Any, pack_dir: Path):
    assert {prompt: complete(client, prompt).strip() for prompt in EDITS} == EDITS
    off = {"vllm_xargs": {"onceedit": 0}}
    assert complete(client, OUTSIDE[0]) == complete(client, OUTSIDE[0], extra_body=off)
    done = subprocess.run(
        [ONCEEDIT, "host", "list", "--json", "-"], capture_output=True, text=True, timeout=120, check=True
    )
    (found,) = [host for host in json.loads(done.stdout) if host["name"] == NAME]
    assert (found["pack"], len(found["engines"])) == (str(pack_dir), 1)


def test_its_pack_is_changed_by_the_hosts_own_command(client: Any, other_pack_dir: Path):
    with pytest.raises(openai.ConflictError, match=f"onceedit host load PACK --name {NAME}"):
        client.post("/onceedit/load", body={"pack": str(other_pack_dir)}, cast_to=object)
