"""A stand-in for vLLM's server: the paths that are called, the answers' shapes, an engine process of its own; tokens by arithmetic.

It fails as it is told: by the environment variables FAKE_DIES (at the start) and FAKE_SLOW_START (never healthy), and through POST /fake: deaf (keeps
its version), nan (log-probabilities as vLLM sends those that are no numbers), delay (seconds, times the requests before), part (seconds of
two tokens of a stream).
"""

import argparse
import asyncio
import importlib
import json
import multiprocessing
import os
import time
from multiprocessing import shared_memory
from types import SimpleNamespace

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route


def named(path):
    module, name = path.rsplit(".", 1)
    return getattr(importlib.import_module(module), name)


class State:
    version, weights, calls, tokens, aborted, faults, paused = "default", {}, [], 0, set(), {}, False


def worker(extension):
    """What vLLM mixes the extension into: `reload_weights` keeps the tensors."""
    made = type("Worker", (named(extension),), {})()
    made.model_runner = SimpleNamespace(
        reload_weights=lambda weights_iterator: State.weights.update({name: float(t.float().sum()) for name, t in weights_iterator}),
        get_model=lambda: SimpleNamespace(modules=list),
    )
    return made


def token(seed, place):
    return 3 + (seed // 7**place) % 90


async def drawn(versions, count):
    """So many tokens more, each by the weights of its moment."""
    while State.paused:
        await asyncio.sleep(0.01)
    versions += [State.version] * count


def choice(params, first, last, reason, versions):
    ids = [token(params["seed"], place) for place in range(first, last)]
    logprob = -9999.0 if "nan" in State.faults else -0.5
    starts = [place for place in range(last) if place == 0 or versions[place] != versions[place - 1]]
    spans = [{"version": versions[a], "start": a, "end": b} for a, b in zip(starts, [*starts[1:], last], strict=True)] if reason else None
    content = [{"token_id": i, "logprob": logprob, "rank": 1, "top_logprobs": []} for i in ids]
    return {"index": 0, "token_ids": ids, "logprobs": {"content": content}, "finish_reason": reason, "weight_versions": spans}


def length(params):
    ends = [place for place in range(params["max_tokens"]) if token(params["seed"], place) in params["stop_token_ids"]]
    return (ends[0] + 1, "stop") if ends else (params["max_tokens"], "length")


async def generate(request: Request):
    body = await request.json()
    params = body["sampling_params"]
    State.calls.append(body)
    count, reason = length(params)
    versions = []
    if not body.get("stream"):
        await drawn(versions, count // 2)
        await asyncio.sleep(State.faults.get("delay", 0) * len(State.calls))
        await drawn(versions, count - count // 2)
        State.tokens += count
        return JSONResponse({"choices": [choice(params, 0, count, reason, versions)]})

    async def parts():
        for first in range(0, count, 2):
            last, aborted = min(first + 2, count), f"generate-tokens-{body['request_id']}" in State.aborted
            await drawn(versions, last - first)
            ended = "abort" if aborted else reason if last == count else None
            yield f"data: {json.dumps({'choices': [choice(params, first, last, ended, versions)]})}\n\n"
            if aborted:
                break
            await asyncio.sleep(State.faults.get("part", 0.01))
        yield "data: [DONE]\n\n"

    return StreamingResponse(parts(), media_type="text/event-stream")


async def call(request: Request):
    body = json.loads(await request.body() or "null")
    State.calls.append([request.url.path, dict(request.query_params), body])
    match request.url.path:
        case "/update_weight_version":
            if "deaf" not in State.faults:
                State.version = body["new_version"]
        case "/finish_weight_update":
            State.version = body["weight_version"]
        case "/pause":
            State.paused = True
        case "/resume":
            State.paused = False
        case "/collective_rpc":
            return JSONResponse({"results": [getattr(request.app.state.worker, body["method"])(*body["args"])]})
        case "/reset_prefix_cache":
            return JSONResponse({"success": True})
        case "/inference/v1/abort_requests":
            State.aborted.update(body["request_ids"])
        case "/get_world_size":
            return JSONResponse({"world_size": 2})
        case "/metrics":
            return Response(f'vllm:generation_tokens_total{{a="b"}} {float(State.tokens)}\n')
        case "/fake":
            State.faults, State.calls = body, []
        case "/state":
            return JSONResponse({"weights": State.weights, "calls": State.calls, "version": State.version})
    return JSONResponse({})


def engine_process(ready):
    buffer = shared_memory.SharedMemory(create=True, size=4096)  # as vLLM's processes speak with each other
    ready.set()
    time.sleep(600)
    buffer.unlink()


def main():
    if "FAKE_DIES" in os.environ:
        raise OSError("Address already in use")
    parser = argparse.ArgumentParser()
    for name in ("host", "port", "middleware", "worker-extension-cls"):
        parser.add_argument(f"--{name}")
    args, _ = parser.parse_known_args()
    if "FAKE_SLOW_START" in os.environ:
        time.sleep(600)
    spawn = multiprocessing.get_context("spawn")
    ready = spawn.Event()
    spawn.Process(target=engine_process, args=(ready,), name="engine").start()
    ready.wait()
    paths = [
        "/health", "/update_weight_version", "/collective_rpc", "/reset_prefix_cache", "/inference/v1/abort_requests", "/metrics", "/state",
        "/init_weight_transfer_engine", "/start_weight_update", "/update_weights", "/finish_weight_update", "/sleep", "/wake_up",
        "/get_world_size", "/pause", "/resume", "/fake",
    ]  # fmt: skip
    routes = [Route("/inference/v1/generate", generate, methods=["POST"]), *(Route(p, call, methods=["GET", "POST"]) for p in paths)]
    app = Starlette(routes=routes, middleware=[Middleware(named(args.middleware))])
    app.state.worker = worker(args.worker_extension_cls)
    uvicorn.run(app, host=args.host, port=int(args.port), log_level="warning")
