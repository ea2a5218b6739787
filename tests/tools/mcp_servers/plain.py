"""A server of the protocol before 2026, without any SDK, and what a bad one may do: ``plain.py HOW``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

HOW = sys.argv[1] if len(sys.argv) > 1 else "good"
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
TOOLS: list[dict[str, Any]] = [{"name": "echo", "inputSchema": SCHEMA}]


def say(message: dict[str, Any]) -> None:
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)


def listing(cursor: str | None) -> dict[str, Any]:
    if HOW == "endless":
        page = int(cursor or 0)
        return {"tools": [{**TOOLS[0], "name": f"t{page}"}], "nextCursor": str(page + 1)}
    if HOW == "empty-pages":
        return {"tools": [], "nextCursor": "again"}
    if HOW == "pages":
        page = int(cursor or 0)
        more = {"nextCursor": str(page + 1)} if page < 2 else {}
        return {"tools": [{**TOOLS[0], "name": f"t{page}"}], **more}
    if HOW == "no-list":
        return {"tools": 5}
    return {"tools": TOOLS}


def call(name: str, args: dict[str, Any]) -> dict[str, Any]:
    if name == "grow":
        TOOLS.append({**TOOLS[0], "name": f"tool{len(TOOLS)}"})
        say({"method": "notifications/tools/list_changed"})
    if name == "die":
        os._exit(3)
    if name == "flood":
        for _ in range(1000):
            say({"method": "notifications/tools/list_changed"})
    if name == "stall":
        time.sleep(1000)
    if name == "long":
        return {"content": [{"type": "text", "text": "x" * 2_000_000}]}
    if name == "nonsense":
        return {"content": "nonsense"}
    if name == "mute":
        return {"content": [], "isError": True}
    return {"content": [{"type": "text", "text": json.dumps(args)}]}


def answer(method: str, params: dict[str, Any]) -> dict[str, Any] | None:
    if method == "initialize":
        info = {"name": "plain", "version": "1"}
        capabilities = {"tools": {"listChanged": True}}
        return {"protocolVersion": "2025-06-18", "capabilities": capabilities, "serverInfo": info}
    if method == "tools/list":
        return listing(params.get("cursor"))
    if method == "tools/call":
        return call(params["name"], params.get("arguments") or {})
    return None


def serve() -> None:
    for line in sys.stdin:
        request = json.loads(line)
        if "id" not in request:
            continue
        result = answer(request["method"], request.get("params") or {})
        if result is None:
            say({"id": request["id"], "error": {"code": -32601, "message": "Method not found"}})
        else:
            say({"id": request["id"], "result": result})


if HOW == "exit":
    sys.exit("no licence found")
if HOW == "garbage":
    while True:
        print("[" * 1000)
if HOW == "endless-line":
    while True:
        print("x" * 65536, end="")
if HOW == "banner":
    print("Welcome!\n\n{}\n", flush=True)
if HOW == "deaf":
    os.close(0)
if HOW == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if HOW == "family":
    subprocess.Popen(["sleep", "1000"])
if HOW == "noisy":
    sys.stderr.write("x" * 1_000_000)
    sys.stderr.flush()
if HOW == "odd-tools":
    TOOLS = [
        {"name": "good", "title": "It is good", "inputSchema": {"type": "object"}},
        {"name": "good", "inputSchema": {"type": "object"}},
        {"name": "a/b", "inputSchema": {"type": "object"}},
        {"name": "x" * 200, "inputSchema": {"type": "object"}},
        {"name": "loop", "inputSchema": {"type": "object", "properties": {"a": {"$ref": "#/properties/a"}}}},
        {
            "name": "remote",
            "inputSchema": {"type": "object", "properties": {"a": {"$ref": "http://127.0.0.1:1/"}}},
        },
        {"name": "tuple", "inputSchema": {"type": "object", "properties": {"a": {"prefixItems": []}}}},
        {"name": "wordy", "description": "x" * 100_000, "inputSchema": {"type": "object"}},
    ]
if HOW in ("hang", "stubborn-hang", "deaf"):
    while True:
        time.sleep(1000)
serve()
if HOW == "stubborn":
    while True:
        time.sleep(1000)
