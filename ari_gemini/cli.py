"""The command line: arguments in, exit code out (0 well, 1 something is wrong, 2 usage or configuration)."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from ari_gemini import __version__
from ari_gemini.errors import AriGeminiError, ConfigError
from ari_gemini.telemetry import logs

OK, WRONG, USAGE = 0, 1, 2

T = TypeVar("T")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = _parser().parse_args(argv)
    run: Callable[[argparse.Namespace], int] = arguments.run
    try:
        return run(arguments)
    except ConfigError as error:
        for line in str(error).splitlines():
            print(f"ari-gemini: {line}", file=sys.stderr)
        return USAGE
    except AriGeminiError as error:
        print(f"ari-gemini: {error}", file=sys.stderr)
        return WRONG
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ari-gemini", description="Asterisk calls answered by Google Gemini Live."
    )
    parser.add_argument("--version", action="version", version=f"ari-gemini {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser(
        "serve", help="answer calls until SIGTERM; a second one does not wait for calls to end"
    )
    _add_config(serve)
    serve.set_defaults(run=_serve)

    check = commands.add_parser("check", help="say what is wrong between here, Asterisk and Gemini")
    _add_config(check)
    check.add_argument(
        "--before-start", action="store_true", help="the service is not running yet, and that is not a fault"
    )
    check.set_defaults(run=_check)

    demo = commands.add_parser("demo", help="one whole call on this machine: no Asterisk, no key needed")
    demo.add_argument(
        "--out", type=Path, default=Path("demo-out"), help="where the recording goes (demo-out)"
    )
    demo.set_defaults(run=_demo)

    _add_token(
        commands.add_parser("token", help="mint an ephemeral Gemini token, or be the broker that does")
    )

    _add_simulators(commands.add_parser("simulate", help="stand-ins for the outside world"))
    return parser


def _add_config(parser: argparse.ArgumentParser, *, default: str | None = None) -> None:
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        default=default,
        help="TOML file; without it the environment and defaults are all",
    )


def _add_token(token: argparse.ArgumentParser) -> None:
    _add_config(token)
    token.add_argument("--agent", metavar="NAME", help="good for this agent's sessions only (else for any)")
    token.add_argument("--uses", type=int, metavar="N", help="sessions it may start (0: any number)")
    token.add_argument("--lifetime", type=float, metavar="SECONDS", help="until its sessions end")
    token.add_argument("--start-within", type=float, metavar="SECONDS", help="until none can be started")
    token.set_defaults(run=_token)
    kinds = token.add_subparsers(metavar="serve")
    serve = kinds.add_parser("serve", help="mint tokens for workers that have no key, until SIGTERM")
    _add_config(serve, default=argparse.SUPPRESS)  # what stands before `serve` counts, too
    serve.set_defaults(run=_token_serve)


def _add_simulators(simulate: argparse.ArgumentParser) -> None:
    kinds = simulate.add_subparsers(required=True, metavar="WHAT")

    gemini = kinds.add_parser("gemini", help="a Gemini Live server that plays scenarios")
    gemini.add_argument("--listen", default="127.0.0.1:8090", metavar="HOST:PORT")
    gemini.add_argument("--tls-cert", type=Path, metavar="FILE", help="serve wss with this certificate")
    gemini.add_argument("--tls-key", type=Path, metavar="FILE")
    gemini.add_argument("--scenario", default="two_turns", metavar="NAME", help='"list" names them all')
    gemini.set_defaults(run=_simulate_gemini)

    asterisk = kinds.add_parser("asterisk", help="an ARI that rings the service as Asterisk would")
    asterisk.add_argument("--listen", default="127.0.0.1:8088", metavar="HOST:PORT")
    asterisk.add_argument("--username", default="gemini")
    asterisk.add_argument("--app", default="ari-gemini")
    asterisk.add_argument("--agent", default="default")
    asterisk.add_argument("--calls", type=int, default=0, metavar="N", help="stop after N calls (0: never)")
    asterisk.add_argument(
        "--interval", type=float, default=5.0, metavar="SECONDS", help="pause between calls"
    )
    asterisk.set_defaults(run=_simulate_asterisk)


def _serve(arguments: argparse.Namespace) -> int:
    from ari_gemini.app import Service
    from ari_gemini.config import load_config

    config = load_config(arguments.config, os.environ)
    logs.configure(config.log.level, config.log.format)

    async def serve() -> None:
        service = Service(config, environ=os.environ)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, service.drain)
        await service.run()

    _run(serve())
    return OK


def _check(arguments: argparse.Namespace) -> int:
    from ari_gemini.check import check
    from ari_gemini.config import load_config

    config = load_config(arguments.config, os.environ)
    logs.configure("error")
    well = _run(check(config, before_start=arguments.before_start, environ=os.environ))
    return OK if well else WRONG


def _demo(arguments: argparse.Namespace) -> int:
    from ari_gemini.demo import demo

    logs.configure("error")
    return OK if _run(demo(arguments.out, os.environ)) else WRONG


def _token(arguments: argparse.Namespace) -> int:
    from ari_gemini.token_command import Wish, mint

    wish = Wish(arguments.agent, arguments.uses, arguments.lifetime, arguments.start_within)
    logs.configure("error")
    print(_run(mint(arguments.config, os.environ, wish)))
    return OK


def _token_serve(arguments: argparse.Namespace) -> int:
    from ari_gemini.config import load_token_config
    from ari_gemini.gemini import broker

    config = load_token_config(arguments.config, os.environ)
    logs.configure(config.log.level, config.log.format)

    async def serve() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await broker.serve(config.gemini, config.broker, stop)

    _run(serve())
    return OK


def _simulate_gemini(arguments: argparse.Namespace) -> int:
    from ari_gemini.simulator import gemini_live

    if arguments.scenario == "list":
        print("\n".join(gemini_live.list_scenarios()))
        return OK
    if (arguments.tls_cert is None) != (arguments.tls_key is None):
        raise ConfigError("--tls-cert and --tls-key belong together")
    logs.configure("info")
    _run(gemini_live.serve(arguments.listen, arguments.tls_cert, arguments.tls_key, arguments.scenario))
    return OK


def _simulate_asterisk(arguments: argparse.Namespace) -> int:
    from ari_gemini.simulator import asterisk

    password = os.environ.get("ARI_PASSWORD", "")
    if not password:
        raise ConfigError("environment ARI_PASSWORD: missing; the service must be given the same one")
    logs.configure("info")
    _run(
        asterisk.serve(
            arguments.listen,
            username=arguments.username,
            password=password,
            app=arguments.app,
            agent=arguments.agent,
            calls=arguments.calls,
            interval=arguments.interval,
        )
    )
    return OK


def _run(work: Coroutine[Any, Any, T]) -> T:
    return uvloop.run(work)


if __name__ == "__main__":
    sys.exit(main())
