"""A small OpenAI-compatible server on this machine that misbehaves on a schedule, and keeps its own books.

Real sockets and the real `openai` client; the schedule is a function of the prompt and of how often it was asked, so
a run can be repeated. Its bill counts the replies whose usage a client can read, the malformed ones among them.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

FAULTS = ("429", "500", "503", "hang", "drop", "no json", "no choices", "null text", "429 told")
FOR_GOOD = ("cut off", "too long", "no choices")
"""Faults that a prompt may meet every time: a reply that is all thought, a refusal in other words, no reply in it."""
HANG_S = 3.0


@dataclass
class Books:
    """What the server did."""

    asked: Counter[str] = field(default_factory=Counter)
    """By prompt, how often."""
    answered: Counter[str] = field(default_factory=Counter)
    """By prompt, good replies."""
    faults: Counter[str] = field(default_factory=Counter)
    prompt_tokens: int = 0
    answer_tokens: int = 0
    at_once: int = 0
    most_at_once: int = 0
    keys: set[str] = field(default_factory=set)
    settings: list[dict[str, Any]] = field(default_factory=list)
    refuse: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Prompts that are refused for good: status and code."""
    always: Callable[[str], str] = lambda prompt: ""
    """The fault that a prompt meets every time; empty: none."""
    busy: int = 0
    """The next so many requests are told that they come too fast."""
    filtered: set[str] = field(default_factory=set)
    """Prompts whose reply a filter takes: it has no text and says so."""
    refuse_setting: str = ""
    """A setting that this server calls `max_completion_tokens`."""
    share: float = 0.0
    """Part of the requests that meet a fault; the third try of a prompt never does."""
    delay: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)


def reply_to(prompt: str) -> str:
    """What the server says to a prompt."""
    return ("yes", "no")[hashlib.sha256(prompt.encode()).digest()[0] % 2]


def for_good(prompt: str, share: float) -> str:
    """One of the faults that last, for a part of the prompts; empty for the others."""
    digest = hashlib.sha256(f"for good {prompt}".encode()).digest()
    return FOR_GOOD[digest[4] % len(FOR_GOOD)] if int.from_bytes(digest[:4]) / 2**32 < share else ""


def fault_of(prompt: str, times: int, share: float) -> str:
    """The fault that a prompt meets when it is asked for the n-th time, from 0; empty: none."""
    digest = hashlib.sha256(f"{times} {prompt}".encode()).digest()
    if times >= 2 or int.from_bytes(digest[:4]) / 2**32 >= share:
        return ""
    return FAULTS[digest[4] % len(FAULTS)]


@contextmanager
def endpoint(share: float = 0.0, delay: float = 0.0) -> Iterator[tuple[str, Books]]:
    """The server's base address and its books."""
    books = Books(share=share, delay=delay)

    class Handler(_Handler):
        pass

    Handler.books = books
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", books
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    books: Books
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        books = self.books
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        chat = self.path.endswith("/chat/completions")
        prompt = body["messages"][0]["content"] if chat else body["prompt"]
        with books.lock:
            times = books.asked[prompt]
            books.asked[prompt] += 1
            books.at_once += 1
            books.most_at_once = max(books.most_at_once, books.at_once)
            books.keys.add(self.headers.get("Authorization", ""))
            books.settings.append({key: value for key, value in body.items() if key not in ("messages", "prompt")})
        try:
            time.sleep(books.delay)
            if books.refuse_setting and books.refuse_setting in body:
                self._send(400, {"error": {"message": "use max_completion_tokens", "code": "unsupported_parameter"}})
                return
            with books.lock:
                busy = books.busy > 0
                books.busy -= busy
            fault = "429" if busy else books.always(prompt) or fault_of(prompt, times, books.share)
            self._answer(prompt, chat, fault)
        except (BrokenPipeError, ConnectionResetError):
            pass
        finally:
            with books.lock:
                books.at_once -= 1

    def _answer(self, prompt: str, chat: bool, fault: str) -> None:
        books = self.books
        if prompt in books.refuse:
            status, code = books.refuse[prompt]
            self._send(status, {"error": {"message": f"refused {code}", "code": code}})
            return
        with books.lock:
            books.faults[fault or "none"] += 1
        if fault == "hang":  # the client has gone long before
            with books.lock:
                books.at_once -= 1
            time.sleep(HANG_S)
            with books.lock:
                books.at_once += 1
        if fault in ("hang", "drop"):
            self.close_connection = True
            self.connection.close()
            return
        if fault[:3] in ("429", "500", "503"):
            more = {"Retry-After": "0.05"} if fault.endswith("told") else {}
            self._send(int(fault[:3]), {"error": {"message": "not now", "code": "busy"}}, more)
            return
        if fault == "too long":
            message = f"This model's maximum context length is 8 tokens, your prompt has {len(prompt)}."
            self._send(400, {"object": "error", "message": message, "type": "BadRequestError", "code": 400})
            return
        if fault == "no json":
            self._raw(200, b'{"id": "x", "choi', {})
            return
        usage = {"prompt_tokens": len(prompt.split()), "completion_tokens": 1, "total_tokens": 0}
        with books.lock:
            books.prompt_tokens += usage["prompt_tokens"]
            books.answer_tokens += 1
            books.answered[prompt] += not fault
        filtered = prompt in books.filtered
        text = None if filtered or fault in ("null text", "cut off") else reply_to(prompt)
        reason = "content_filter" if filtered else "length" if fault == "cut off" else "stop"
        choice: dict[str, Any] = {"index": 0, "finish_reason": reason}
        choice |= {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        choices = [] if fault == "no choices" else [choice]
        kind = "chat.completion" if chat else "text_completion"
        self._send(200, {"id": "x", "object": kind, "created": 0, "model": "m", "choices": choices, "usage": usage})

    def _send(self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        self._raw(status, json.dumps(body).encode(), headers or {})

    def _raw(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""
