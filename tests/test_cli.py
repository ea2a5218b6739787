"""The command line: exit codes, and one line for what is wrong before anything is opened."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from ari_gemini import __version__, cli, token_command
from ari_gemini.errors import ConfigError, SessionUnavailable


@pytest.fixture(autouse=True)
def _no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GEMINI_API_KEY", "GEMINI_API_KEY_FILE", "ARI_PASSWORD", "ARI_PASSWORD_FILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "c.toml"
    path.write_text('[ari]\nusername = "gemini"\n')
    return path


def code_of(*argv: str) -> int:
    """The exit code, whichever way it comes."""
    try:
        return cli.main(argv)
    except SystemExit as left:
        return int(str(left.code))


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of("--version") == 0
    assert capsys.readouterr().out == f"ari-gemini {__version__}\n"


@pytest.mark.parametrize(
    "argv", [["--help"], ["serve", "--help"], ["check", "--help"], ["demo", "--help"], ["token", "--help"]]
)
def test_help(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of(*argv) == 0
    assert capsys.readouterr().out.startswith("usage: ari-gemini")


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["dance"],
        ["serve", "--confg", "x"],
        ["simulate"],
        ["simulate", "cisco"],
        ["simulate", "asterisk", "--calls", "many"],
        ["token", "--uses", "many"],
        ["token", "dance"],
    ],
)
def test_wrong_usage(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of(*argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "usage: ari-gemini" in captured.err


@pytest.mark.parametrize("command", ["serve", "check"])
def test_a_wrong_configuration_is_said_in_one_line_before_anything_is_opened(
    command: str, config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "_run", lambda work: pytest.fail("something was opened"))
    assert code_of(command, "--config", str(config)) == 2
    captured = capsys.readouterr()
    assert captured.err == (
        f"ari-gemini: {config}: gemini.api_key: missing; set GEMINI_API_KEY or gemini.api_key_file\n"
    )
    assert captured.out == ""


def test_every_mistake_has_its_line(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text("[ari]\nx = 1\n[calls]\ny = 1\n")
    assert code_of("serve", "--config", str(config)) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.removeprefix(f"ari-gemini: {config}: ") for line in lines] == [
        "ari.username: Field required",
        "ari.x: unknown key",
        "calls.y: unknown key",
    ]


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ConfigError("a\nb"), 2, "ari-gemini: a\nari-gemini: b\n"),
        (SessionUnavailable("no network"), 1, "ari-gemini: no network\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_how_errors_leave(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    line: str,
) -> None:
    def fail(_: object) -> int:
        raise error

    monkeypatch.setattr(cli, "_check", fail)
    assert cli.main(["check"]) == code
    assert capsys.readouterr().err == line


def test_a_defect_is_not_dressed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "_check", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.main(["check"])


@pytest.mark.parametrize(("well", "code"), [(True, 0), (False, 1)])
def test_the_exit_code_of_check(monkeypatch: pytest.MonkeyPatch, config: Path, well: bool, code: int) -> None:
    def run(work) -> bool:
        work.close()
        return well

    monkeypatch.setenv("GEMINI_API_KEY", "k")
    monkeypatch.setenv("ARI_PASSWORD", "p")
    monkeypatch.setattr(cli, "_run", run)
    monkeypatch.setattr(cli.logs, "configure", lambda *_: None)
    assert cli.main(["check", "--config", str(config)]) == code


def test_the_simulated_asterisk_wants_the_services_password(capsys: pytest.CaptureFixture[str]) -> None:
    if importlib.util.find_spec("ari_gemini.simulator.asterisk") is None:
        pytest.skip("there is no simulated Asterisk yet")
    assert code_of("simulate", "asterisk") == 2
    assert "ARI_PASSWORD" in capsys.readouterr().err


def test_the_simulated_gemini(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    if importlib.util.find_spec("ari_gemini.simulator.gemini_live") is None:
        pytest.skip("there is no simulated Gemini yet")
    assert code_of("simulate", "gemini", "--scenario", "list") == 0
    assert "two_turns" in capsys.readouterr().out.split()
    assert code_of("simulate", "gemini", "--tls-cert", str(tmp_path / "c.pem")) == 2
    assert capsys.readouterr().err == "ari-gemini: --tls-cert and --tls-key belong together\n"


def test_a_token_goes_to_standard_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], config: Path
) -> None:
    wishes = []

    async def mint(path: Path, environ: object, wish: token_command.Wish) -> str:
        wishes.append((path, wish))
        return "auth_tokens/abc"

    monkeypatch.setattr(token_command, "mint", mint)
    monkeypatch.setattr(cli.logs, "configure", lambda *_: None)
    limits = ("--uses", "0", "--lifetime", "90", "--start-within", "30.5")
    assert code_of("token", "--config", str(config), "--agent", "sales", *limits) == 0
    assert code_of("token") == 0
    assert capsys.readouterr().out == "auth_tokens/abc\nauth_tokens/abc\n"
    assert wishes == [
        (config, token_command.Wish("sales", 0, 90.0, 30.5)),
        (None, token_command.Wish()),
    ]


@pytest.mark.parametrize("argv", [["token"], ["token", "serve"]])
def test_who_mints_needs_the_key(argv: list[str], config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of(*argv, "--config", str(config)) == 2
    missing = "ari-gemini: gemini.api_key: missing; set GEMINI_API_KEY or gemini.api_key_file\n"
    assert capsys.readouterr().err == missing


@pytest.mark.parametrize(
    "words", [["token", "--config", "a", "serve"], ["token", "serve", "--config", "a"], ["token", "serve"]]
)
def test_the_brokers_file_may_stand_on_either_side(words: list[str]) -> None:
    assert cli._parser().parse_args(words).config == (Path("a") if "a" in words else None)
