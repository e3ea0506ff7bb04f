"""Stands in for shardd: reads its configuration; the first node answers as a coordinator.

Run as `fake_shardd.py MODE --config FILE`. MODE `ok`; `fail:NAME` ends that node with status 3;
`stubborn` ignores SIGTERM; `orphan` leaves a child that ignores SIGTERM; `loading` stays so, as
does `fail`.
"""

import signal
import subprocess
import sys
import threading
from pathlib import Path

import yaml

from daemon.messages import Chunk, Reply, Request, decode, encode


def main() -> None:
    mode, _, target = sys.argv[1].partition(":")
    config = yaml.safe_load(Path(sys.argv[3]).read_text())
    name = config["node"]["name"]
    if mode == "fail" and name == target:
        say(f"{name} cannot go on")
        sys.exit(3)
    ended = threading.Event()
    signal.signal(signal.SIGTERM, signal.SIG_IGN if mode == "stubborn" else lambda *_: ended.set())
    say(f"{name} starts")
    if mode == "orphan":
        sleeper = "import signal; signal.signal(15, signal.SIG_IGN); print('x', flush=True)"
        child = subprocess.Popen(
            [sys.executable, "-c", f"{sleeper}; signal.pause()"], stdout=subprocess.PIPE
        )
        child.stdout.readline()
        say(f"child {child.pid}")
    if config["coordinator"]["run"]:
        serve = threading.Thread(target=coordinate, args=(config, mode), daemon=True)
        serve.start()
    while not ended.wait(1):
        pass


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def coordinate(config: dict, mode: str) -> None:
    import zmq

    router = zmq.Context().socket(zmq.ROUTER)
    router.bind(config["coordinator"]["address"])
    nodes = [{"name": name, "state": "ready"} for name in config["coordinator"]["nodes"]]
    state = "loading" if mode in ("loading", "fail") else "ready"
    status = {"cluster": "local", "state": state, "nodes": nodes, "hops": []}
    while True:
        peer, data = router.recv_multipart()
        request = decode(data)
        assert isinstance(request, Request)
        if request.verb == "generate":
            start = {"sequence": "ab" * 16, "prompt_tokens": 1, "cached_tokens": 0, "seed": 0}
            prompt = request.arguments["prompt"]
            for chunk in (start, {"text": f"after {prompt}", "tokens": [1], "logprobs": None}):
                router.send_multipart([peer, encode(Chunk(request.request, chunk))])
            if prompt == "hang":
                continue
        answers = {"status": status, "pipeline": {"stages": []}, "cancel": {"cancelled": []}}
        answer = answers.get(request.verb, {})
        router.send_multipart([peer, encode(Reply(request.request, answer))])


if __name__ == "__main__":
    main()
