"""How many requests a second the model server answers, against KServe's Python ModelServer and MLServer.

The same published model, one row of raw features in a request, JSON, over loopback. Each server is one process on the
first core, wrk runs on the second; all servers are up, and are asked in turn. The peers run the SavedModel as their
documentation shows, in environments that this script makes once in the cache.

    kserve      KServe's ModelServer 0.21, V1
    mlserver    MLServer 1.7, V2, without parallel workers
    tensorflow  this server with the SavedModel on TensorFlow, V1
    litert      this server with the edge bundle on LiteRT, V1
    recorded    the same, V1, and each request is recorded; the difference is what that costs
    v2          the same, V2, not recorded
    constant    this server's HTTP with a constant reply: the ceiling
    uvicorn     a constant reply as raw ASGI on uvicorn (uvloop, httptools); only when asked for
    granian     the same on granian, one worker; only when asked for

Needs wrk (apt install wrk), taskset, two cores and a published model with an edge bundle (scripts/demo.sh makes one).
Usage: python bench/serving_throughput.py [MODELS] [--seconds 4] [--rounds 3] [--servers kserve litert ...]
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import measured_process
import uv

from kfp_hybrid.cli.options import cache_folder
from kfp_hybrid.targets.local.code import snapshot
from kfp_hybrid.targets.local.environments import ensure_environment

BENCH = Path(__file__).parent
CONNECTIONS = (1, 16, 64)
PEERS = {"kserve": ["kserve==0.21.0"], "mlserver": ["mlserver==1.7.1"]}
HTTP_SERVERS = ("uvicorn", "granian")
SERVERS = ("kserve", "mlserver", "tensorflow", "litert", "recorded", "v2", "constant")
SCRIPT = """
wrk.method = "POST"
local file = io.open(os.getenv("BODY"), "rb")
wrk.body = file:read("*a")
wrk.headers["Content-Type"] = "application/json"
done = function(summary, latency, requests)
  local e = summary.errors
  local failed = e.connect + e.read + e.write + e.status + e.timeout
  print(string.format('{"requests": %d, "us": %d, "p50": %f, "p99": %f, "errors": %d}', summary.requests,
    summary.duration, latency:percentile(50), latency:percentile(99), failed))
end
"""


@dataclass
class Load:
    """What one run of wrk came to: requests/s, percentiles of the latency in ms, and server CPU in us a request."""

    rate: float
    p50: float
    p99: float
    cpu: float


@dataclass
class Contender:
    """A server that is up."""

    process: "subprocess.Popen[bytes]"
    url: str
    body: Path
    start_seconds: float = 0.0
    resident_mb: float = 0.0
    loads: dict[int, list[Load]] = field(default_factory=lambda: {c: [] for c in CONNECTIONS})

    def middle(self, connections: int, what: Callable[[Load], float]) -> float:
        return median(map(what, self.loads[connections]))


def peer_python(peer: str) -> Path:
    """The interpreter of a peer's environment, which is made unless it is there."""
    folder = cache_folder() / "peers" / peer
    python = folder / "bin" / "python"
    if not (folder / ".complete").exists():
        print(f"making the environment of {peer} in {folder}", file=sys.stderr)
        subprocess.run([uv.find_uv_bin(), "venv", "-q", "--clear", "--python", "3.11", str(folder)], check=True)
        packages = [*PEERS[peer], "tensorflow==2.21.*"] if peer in PEERS else ["uvicorn[standard]", "granian[uvloop]"]
        subprocess.run([uv.find_uv_bin(), "pip", "install", "-q", "--python", str(python), *packages], check=True)
        (folder / ".complete").touch()
    return python


def image_python(image: str) -> str:
    return str(ensure_environment(image, cache_folder(), lambda line: print(line, file=sys.stderr)))


def command(name: str, version: Path, port: int, folder: Path) -> list[str]:
    ours = ["-m", "kfp_hybrid.serving", str(version), "--host", "127.0.0.1", "--port", str(port)]
    if name == "kserve":
        return [str(peer_python(name)), str(BENCH / "serving_peer_kserve.py"), str(version), str(port)]
    if name == "mlserver":
        settings = {"http_port": port, "grpc_port": port + 100, "metrics_port": port + 200, "parallel_workers": 0,
                    "host": "127.0.0.1"}  # fmt: skip
        model = {"name": "model", "implementation": "serving_peer_mlserver.SavedModel",
                 "parameters": {"uri": str(version)}}  # fmt: skip
        (folder / "settings.json").write_text(json.dumps(settings))
        (folder / "model-settings.json").write_text(json.dumps(model))
        return [str(peer_python(name).parent / "mlserver"), "start", str(folder)]
    if name == "tensorflow":
        return [image_python("tensorflow"), *ours, "--engine", "tensorflow"]
    if name in HTTP_SERVERS:
        start = str(peer_python("asgi").parent / name)
        options = {"uvicorn": ["--no-access-log"], "granian": ["--interface", "asginl", "--workers", "1"]}[name]
        return [start, "serving_asgi:reply", "--host", "127.0.0.1", "--port", str(port), "--loop", "uvloop", *options]
    if name == "constant":
        return [image_python("serving"), str(BENCH / "serving_constant.py"), str(port)]
    if name == "recorded":
        ours += ["--record", str(folder / "requests")]
    return [image_python("serving"), *ours]


def bodies(version: Path, folder: Path) -> dict[str, Path]:
    """One row of the samples, as each protocol wants it."""
    rows = json.loads((version / "edge" / "samples.json").read_text())["rows"]
    row = {name: values[0] for name, values in rows.items()}
    tensors = [
        {"name": name, "shape": [1], "data": [value], "datatype": "BYTES" if isinstance(value, str) else "FP32"}
        for name, value in row.items()
    ]
    paths = {}
    for protocol, document in (("v1", {"instances": [row]}), ("v2", {"inputs": tensors})):
        paths[protocol] = folder / f"{protocol}.json"
        paths[protocol].write_text(json.dumps(document))
    return paths


@contextlib.contextmanager
def running(name: str, version: Path, port: int, folder: Path) -> Iterator[Contender]:
    """Start a server on the first core, and wait for its first answer."""
    folder.mkdir()
    protocol = "v2" if name in ("v2", "mlserver") else "v1"
    path = {"v1": "/v1/models/model:predict", "v2": "/v2/models/model/infer"}[protocol]
    arguments = command(name, version, port, folder)
    environment = {**os.environ, "PYTHONPATH": f"{snapshot(cache_folder())}:{BENCH}", "TF_CPP_MIN_LOG_LEVEL": "3"}
    started = time.monotonic()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(["taskset", "-c", "0", *arguments], stdout=log, stderr=log, env=environment)
    contender = Contender(process, f"http://127.0.0.1:{port}{path}", bodies(version, folder)[protocol])
    try:
        while not answers(contender):
            if process.poll() is not None or time.monotonic() - started > 300:
                raise SystemExit(f"{name} did not start: {(folder / 'log').read_text()[-2000:]}")
            time.sleep(0.01)
        contender.start_seconds = time.monotonic() - started
        yield contender
    finally:
        process.terminate()
        process.wait(30)


def answers(contender: Contender) -> bool:
    request = urllib.request.Request(
        contender.url, contender.body.read_bytes(), {"content-type": "application/json"}
    )  # fmt: skip
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def cpu_seconds(root: int) -> float:
    """Processor time of a server and of the processes that it started."""
    ticks = 0
    for process in measured_process.tree(root):
        ticks += sum(map(int, Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def resident_mb(root: int) -> float:
    return sum(map(measured_process.resident_bytes, measured_process.tree(root))) / 1e6


def load(contender: Contender, connections: int, seconds: float, script: Path) -> Load:
    before = cpu_seconds(contender.process.pid)
    wrk = [
        "taskset",
        "-c",
        "1",
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{seconds:g}s",
        "--timeout",
        "30s",
        "-s",
        str(script),
    ]
    environment = {**os.environ, "BODY": str(contender.body)}
    done = subprocess.run([*wrk, contender.url], env=environment, capture_output=True, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    if result["errors"]:
        raise SystemExit(f"{contender.url}: {result['errors']} of {result['requests']} requests failed")
    cpu = (cpu_seconds(contender.process.pid) - before) / result["requests"] * 1e6
    return Load(result["requests"] / result["us"] * 1e6, result["p50"] / 1e3, result["p99"] / 1e3, cpu)


def report(contenders: dict[str, Contender]) -> None:
    print(
        "| server | start s | RSS MB |", " | ".join(f"c={c}: requests/s, p50/p99 ms, CPU us" for c in CONNECTIONS), "|"
    )
    print("|---|---|---|" + "---|" * len(CONNECTIONS))
    for name, one in contenders.items():
        cells = [
            f"{one.middle(c, lambda x: x.rate):,.0f}, {one.middle(c, lambda x: x.p50):.2f}/"
            f"{one.middle(c, lambda x: x.p99):.2f}, {one.middle(c, lambda x: x.cpu):.0f}"
            for c in CONNECTIONS
        ]
        print(f"| {name} | {one.start_seconds:.2f} | {one.resident_mb:.0f} |", " | ".join(cells), "|")
    for peer in PEERS.keys() & contenders.keys():
        base = contenders[peer]
        for name, one in contenders.items():
            if name in (*PEERS, *HTTP_SERVERS):
                continue
            ratios = [
                f"c={c}: {one.middle(c, lambda x: x.rate) / base.middle(c, lambda x: x.rate):.1f}x requests/s, "
                f"p99 {base.middle(c, lambda x: x.p99) / one.middle(c, lambda x: x.p99):.1f}x lower"
                for c in CONNECTIONS
            ]
            print(f"{name} against {peer}: {'; '.join(ratios)}; RSS 1/{base.resident_mb / one.resident_mb:.1f}; "
                  f"start {base.start_seconds / one.start_seconds:.1f}x sooner")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="?", type=Path, default=BENCH.parent / ".cache/demo/models")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--servers", nargs="+", choices=SERVERS + HTTP_SERVERS, default=SERVERS)
    options = parser.parse_args()
    version = (options.models / (options.models / "LATEST").read_text().strip()).resolve()
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        script = Path(scratch, "wrk.lua")
        script.write_text(SCRIPT)
        contenders = {}
        for number, name in enumerate(options.servers):
            contenders[name] = stack.enter_context(running(name, version, 18100 + number, Path(scratch, name)))
            load(contenders[name], 1, 1.0, script)
        for _ in range(options.rounds):
            for connections in CONNECTIONS:
                for one in contenders.values():
                    one.loads[connections].append(load(one, connections, options.seconds, script))
                    one.resident_mb = resident_mb(one.process.pid)
        report(contenders)


if __name__ == "__main__":
    main()
