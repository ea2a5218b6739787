"""Logs: one line an event, whatever a peer writes into it, and no secret among the lines of a traceback."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from ari_gemini.telemetry import logs

FORGED = "bye\n2026-01-01T00:00:00Z [info     ] call.ended \x1b[2J"


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def out() -> io.StringIO:
    return io.StringIO()


def test_for_people(out: io.StringIO) -> None:
    logs.configure("info", "console", out)
    structlog.get_logger().bind(call="7").info("call.ended", cause="caller_hangup", seconds=1.5)
    (line,) = out.getvalue().splitlines()
    time, rest = line.split(" ", 1)
    assert time.endswith("Z")
    assert rest.split() == ["[info", "]", "call.ended", "call=7", "cause=caller_hangup", "seconds=1.5"]


def test_for_machines(out: io.StringIO) -> None:
    logs.configure("info", "json", out)
    structlog.get_logger().info("call.ended", cause="x", detail=None)
    line = json.loads(out.getvalue())
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "call.ended", "level": "info", "cause": "x", "detail": None}


@pytest.mark.parametrize(
    ("level", "said"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_levels(out: io.StringIO, level: logs.Level, said: list[str]) -> None:
    logs.configure(level, "json", out)
    logger = structlog.get_logger()
    for name in ("debug", "info", "warning", "error"):
        getattr(logger, name)(name)
    assert [json.loads(line)["event"] for line in out.getvalue().splitlines()] == said


def test_a_logger_made_before_obeys_too(out: io.StringIO) -> None:
    early = structlog.get_logger("early")
    logs.configure("error", "json", out)
    early.info("nothing")
    early.error("something")
    assert [json.loads(line)["event"] for line in out.getvalue().splitlines()] == ["something"]


@pytest.mark.parametrize("fmt", ["console", "json"])
def test_nobody_forges_a_line(out: io.StringIO, fmt: logs.Format) -> None:
    logs.configure("info", fmt, out)
    structlog.get_logger().info("call.ended", detail=FORGED)
    logging.getLogger("websockets").warning("closed: %s", FORGED)
    lines = out.getvalue().splitlines()
    assert len(lines) == 2
    assert "\x1b" not in out.getvalue()


@pytest.mark.parametrize("fmt", ["console", "json"])
def test_tracebacks_show_no_values(out: io.StringIO, fmt: logs.Format) -> None:
    logs.configure("info", fmt, out)
    secret = "s3cr3t"
    try:
        raise ZeroDivisionError(len(secret))
    except ZeroDivisionError:
        structlog.get_logger().exception("call.defect")
        logging.getLogger("asyncio").exception("defect")
    text = out.getvalue()
    assert text.count("ZeroDivisionError") >= 2
    assert text.count("test_tracebacks_show_no_values") >= 2, "there is a traceback"
    assert secret not in text.replace('secret = "s3cr3t"', "")


def test_libraries_join_at_warning_in_the_same_format(out: io.StringIO) -> None:
    logs.configure("debug", "json", out)
    library = logging.getLogger("aiohttp.client")
    library.info("chatter")
    library.warning("trouble %d", 7)
    (line,) = map(json.loads, out.getvalue().splitlines())
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "trouble 7", "level": "warning", "logger": "aiohttp.client"}


def test_configuring_again_replaces(out: io.StringIO) -> None:
    logs.configure("info", "json", io.StringIO())
    logs.configure("info", "json", out)
    structlog.get_logger().info("once")
    logging.getLogger("x").warning("once")
    assert len(out.getvalue().splitlines()) == 2


def test_colours_only_on_a_terminal(out: io.StringIO) -> None:
    out.isatty = lambda: True
    logs.configure("info", "console", out)
    structlog.get_logger().info("call.up")
    assert "\x1b[" in out.getvalue()


def test_standard_error_unless_told(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure()
    structlog.get_logger().info("call.up")
    captured = capsys.readouterr()
    assert "call.up" in captured.err
    assert captured.out == ""
