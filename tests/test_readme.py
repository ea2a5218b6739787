"""The documentation is true: commands, configuration, dialplan and links of every README are tried."""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from ari_gemini import cli
from ari_gemini.call.agent import Agent
from ari_gemini.call.leg import DEFAULT_AGENT
from ari_gemini.config import SECRETS, Config, load_config
from ari_gemini.errors import Cause
from ari_gemini.simulator.scenario import list_scenarios

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "asterisk/README.md", "deploy/README.md", "ari_gemini/tools/README.md")
READMES = [ROOT / name for name in PAGES]
README = READMES[0].read_text()
EXTENSIONS = (ROOT / "asterisk" / "extensions.conf").read_text()
KEYS = {"GEMINI_API_KEY": "key", "ARI_PASSWORD": "password"}

SECRET_KEYS = {f"{secret.section}.{secret.key}" for secret in SECRETS}
"""Documented as environment variables and files; nobody is told to write them into the file."""


def readable(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of this language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands() -> Iterator[tuple[str, str]]:
    """Every shell command of every README: in which, and the command without its comment."""
    for path in READMES:
        for block in blocks(path.read_text(), "sh"):
            for line in block.splitlines():
                if line.strip():
                    yield readable(path), line


def without_comment(line: str) -> list[str]:
    return shlex.split(line, comments=True)


# Commands.


def test_there_are_commands() -> None:
    assert len(list(commands())) > 20


@pytest.mark.parametrize(("where", "line"), list(commands()))
def test_the_command_is_one_that_a_shell_understands(where: str, line: str) -> None:
    done = subprocess.run(["bash", "-nc", line], capture_output=True, text=True, timeout=10, check=False)
    assert done.returncode == 0, (where, done.stderr)


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_every_make_target_that_is_named_exists() -> None:
    named = {
        target
        for path in READMES
        for target in re.findall(r"(?:^|`|\s)make ([a-z]+)(?=$|`|\s)", path.read_text(), re.MULTILINE)
        if f"`make {target}" in path.read_text() or f"\nmake {target}" in path.read_text()
    }
    assert {"demo", "test", "bench", "lint"} <= named
    assert named <= make_targets()


def ari_gemini_lines() -> list[list[str]]:
    """The arguments of each ``ari-gemini ...`` command, in code blocks and in running text."""
    found: list[list[str]] = []
    for path in READMES:
        text = path.read_text()
        in_blocks = [line for block in blocks(text, "sh") for line in block.splitlines()]
        inline = re.findall(r"`(ari-gemini [^`]+)`", text)
        for line in [*in_blocks, *inline]:
            words = without_comment(line)
            while "ari-gemini" in words:
                words = words[words.index("ari-gemini") + 1 :]
                if words and words[0] in COMMANDS and words not in found:
                    found.append(words)
    return found


COMMANDS = ("serve", "check", "demo", "token", "simulate")


@pytest.mark.parametrize("words", ari_gemini_lines(), ids=" ".join)
def test_the_parser_takes_what_is_written(words: list[str]) -> None:
    """Optional parts, which stand in brackets, are tried with and without."""
    text = " ".join(words)
    placeholders = {"HOST:PORT": "127.0.0.1:1", "FILE": "file", "NAME": "two_turns", "N": "1", "SECONDS": "1"}
    for variant in (re.sub(r"\[[^]]*\]", "", text), text.replace("[", "").replace("]", "")):
        given = [placeholders.get(word, word) for word in variant.split()]
        arguments = cli._parser().parse_args(given)
        assert callable(arguments.run)


def subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def test_every_command_is_in_the_table() -> None:
    table = README.split("## Commands")[1].split("\n## ")[0]
    for name, parser in subcommands(cli._parser()).items():
        kinds = [f"{name} {kind}" for kind in subcommands(parser)]
        for full in [name, *kinds] if parser.get_default("run") else kinds:
            assert re.search(rf"`ari-gemini {full}[` ](?!serve)", table), full


def test_list_of_scenarios_is_what_the_readme_promises(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--scenario list" in README
    assert cli.main(["simulate", "gemini", "--scenario", "list"]) == 0
    shown = capsys.readouterr().out
    assert [name for name in list_scenarios() if name not in shown] == []


def test_the_files_that_commands_copy_exist() -> None:
    for where, line in commands():
        base = ROOT / Path(where).parent if "deploy" in where and not line.startswith("install") else ROOT
        for word in without_comment(line):
            if re.match(r"(asterisk|deploy|requirements|\.\./asterisk)/", word):
                inside = ROOT / "deploy" if word.startswith("../") else ROOT
                assert list(inside.glob(word)) or (inside / word).resolve().exists(), (where, line, base)


# Configuration.


def test_there_is_a_complete_configuration_to_copy() -> None:
    assert README.count("<!-- test: config -->\n```toml") == 1


@pytest.mark.parametrize("path", READMES, ids=readable)
def test_every_toml_block_loads(path: Path, tmp_path: Path) -> None:
    if path != READMES[-1]:  # whose blocks are one file: test_readme_tools.py
        for block in blocks(path.read_text(), "toml"):
            file = tmp_path / "ari-gemini.toml"
            file.write_text(block)
            config = load_config(file, KEYS)
            assert DEFAULT_AGENT in config.agents


def test_the_environment_variables_that_are_shown_work(tmp_path: Path) -> None:
    shown = dict(re.findall(r"`(ARI_GEMINI__[A-Z_]+)=([^`]+)`", README))
    assert len(shown) >= 2
    file = tmp_path / "least.toml"
    file.write_text('[ari]\nusername = "gemini"\n')
    config = load_config(file, KEYS | shown)
    assert config.calls.max_calls == int(shown["ARI_GEMINI__CALLS__MAX_CALLS"])
    assert config.agents["default"].voice == shown["ARI_GEMINI__AGENTS__DEFAULT__VOICE"]


def table_rows(heading: str) -> list[list[str]]:
    """The cells of the first table after these words, without its two head lines."""
    lines = README.split(heading)[1].splitlines()
    first = next(at for at, line in enumerate(lines) if line.startswith("|"))
    rows = []
    for line in lines[first + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def documented() -> dict[str, str]:
    """Every key of the sections' table, and its default as it is written there."""
    found: dict[str, str] = {}
    for keys, default, _ in table_rows("## Configuration"):
        names, values = quoted(keys), quoted(default) or [default]
        section = names[0].rpartition(".")[0]
        if len(values) < len(names):
            values = values * len(names)
        for name, value in zip(names, values, strict=True):
            found[name if "." in name else f"{section}.{name}"] = value
    return found


def model_of(section: str) -> type[BaseModel]:
    annotation = Config.model_fields[section].annotation
    candidates = [annotation, *get_args(annotation)]
    return next(c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel))


def keys_of(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, field in model.model_fields.items():
        if isinstance(field.default, BaseModel):
            yield from keys_of(type(field.default), f"{prefix}.{key}")
        else:
            yield f"{prefix}.{key}", field.default


def existing() -> dict[str, Any]:
    """Every key of every section that is no agent's, and its default."""
    return {
        key: default
        for section in Config.model_fields
        if section not in ("agents", "tools")
        for key, default in keys_of(model_of(section), section)
        if key not in SECRET_KEYS
    }


def test_every_key_is_documented() -> None:
    assert sorted(existing().keys() - documented().keys()) == []


def test_every_documented_key_exists() -> None:
    assert sorted(documented().keys() - existing().keys()) == []


IN_WORDS = {"required", "as listen", "see right", "by model", "none"}


def test_every_documented_default_is_the_default() -> None:
    wrong = {}
    defaults = existing()
    for key, written in documented().items():
        value = defaults[key]
        plain = written.strip('"')
        if written in IN_WORDS or (key == "audiosocket.advertise" and written == "listen"):
            right = value in (None, "", (), PydanticUndefined)
        elif isinstance(value, tuple):
            right = tomllib.loads(f"written = {written}")["written"] == list(value)
        else:
            right = plain == str(value) or plain == str(value).lower()
        if not right:
            wrong[key] = (written, value)
    assert wrong == {}


def agent_keys(model: type[BaseModel] = Agent, prefix: str = "") -> set[str]:
    keys: set[str] = set()
    for name, field in model.model_fields.items():
        if get_origin(field.annotation) is dict:
            keys.add(prefix + name)
            continue
        inner = [
            one
            for one in (field.annotation, *get_args(field.annotation))
            if isinstance(one, type) and issubclass(one, BaseModel)
        ]
        keys |= agent_keys(inner[0], f"{name}.") if inner else {prefix + name}
    return keys


def test_every_key_of_an_agent_is_documented() -> None:
    written: set[str] = set()
    for keys, _ in table_rows("Each `[agents.NAME]`"):
        names = quoted(keys)
        parent = names[0].rpartition(".")[0]
        written |= {parent + name if name.startswith(".") else name for name in names}
    assert sorted(agent_keys() - written) == []
    assert sorted(written - agent_keys()) == []


def test_the_secrets_variables_are_the_ones_that_are_read() -> None:
    for secret in SECRETS:
        for name in (secret.env, secret.env_file, f"{secret.section}.{secret.key}_file"):
            assert f"`{name}`" in README, name


def test_the_causes_are_those_a_caller_can_be_sent_on_with() -> None:
    nobody_goes_on = {"caller_hangup", "unknown_call", "model_hangup", "handed_over"}
    listed = {cause for row in table_rows("`ARI_GEMINI_CAUSE` is one of") for cause in quoted(row[0])}
    assert listed == {cause.value for cause in Cause} - nobody_goes_on
    section = README.split("## Why a call ended")[1].split("\n## ")[0]
    assert nobody_goes_on <= set(quoted(section))


# The dialplan.


def dialplan(text: str) -> list[str]:
    """Dialplan lines without comments and with the blanks that mean nothing taken out."""
    lines = [line.split(";")[0].strip() for line in text.splitlines()]
    return [re.sub(r"\s+", " ", line) for line in lines if line.startswith(("exten", "same"))]


def application(line: str) -> str:
    """``Stasis(ari-gemini,default)`` of an extension's line."""
    return re.sub(r"^(exten => [^,]+,[^,]+|same => n(\([a-z]+\))?),", "", line)


def shipped() -> str:
    address = re.search(r"^ARI_GEMINI_AUDIOSOCKET = (\S+)", EXTENSIONS, re.MULTILINE)
    assert address is not None
    return EXTENSIONS.replace("${ARI_GEMINI_AUDIOSOCKET}", address[1])


def test_the_dialplan_that_is_shown_is_the_one_that_ships() -> None:
    have = " ".join(application(line) for line in dialplan(shipped()))
    shown = [line for block in blocks(README, "ini") for line in dialplan(block)]
    assert len(shown) >= 5
    # what follows AudioSocket() is the operator's own there
    apps = [application(line) for line in shown if not application(line).startswith("Playback(")]
    assert [app for app in apps if app not in have] == []


def test_the_numbers_to_dial_exist() -> None:
    for number in ("700", "701"):
        assert f"exten => {number},1," in EXTENSIONS
        assert number in README
    text = (ROOT / "asterisk" / "README.md").read_text()
    for context in re.findall(r"`\[(ari-gemini[a-z-]*)\]`", text):
        assert f"[{context}]" in EXTENSIONS, context


def test_the_dialplan_speaks_to_the_app_and_the_address_of_the_defaults() -> None:
    config = existing()
    assert f"Stasis({config['ari.app']},{DEFAULT_AGENT})" in EXTENSIONS
    assert f"AudioSocket(${{UUID()}},{config['audiosocket.listen']})" in shipped()


def test_the_files_of_the_asterisk_folder_are_all_described() -> None:
    text = (ROOT / "asterisk" / "README.md").read_text()
    for path in (ROOT / "asterisk").glob("*.conf"):
        assert f"`{path.name}`" in text, path.name


def test_the_files_of_the_deploy_folder_are_all_described() -> None:
    text = (ROOT / "deploy" / "README.md").read_text()
    for path in (ROOT / "deploy").iterdir():
        if path.is_file() and path.name != "README.md":
            assert f"`{path.name}`" in text, path.name


# Links and pictures.


@pytest.mark.parametrize("path", READMES, ids=readable)
def test_every_relative_link_leads_somewhere(path: Path) -> None:
    prose = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", prose):
        if "://" not in target:
            assert (path.parent / target).exists(), target


def test_the_rooms_that_are_described_are_those_there_are() -> None:
    described = {quoted(row[0])[0].rstrip("/") for row in table_rows("## Architecture")}
    there = {path.parent.name for path in (ROOT / "ari_gemini").glob("*/__init__.py")}
    assert described == there


def test_the_modules_of_the_picture_exist() -> None:
    picture = README.split("## Architecture")[1].split("```")[1]
    for room, module in set(re.findall(r"\b([a-z]+)/([a-z]+)(?:\.py)?\b", picture)):
        assert (ROOT / "ari_gemini" / room / f"{module}.py").exists(), f"{room}/{module}"


def test_the_python_version_is_the_packages() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert f"Python {wanted.removeprefix('>=')}" in README
