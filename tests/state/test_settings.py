"""``[state]``: what an operator may write, and where records are kept when he writes nothing."""

# ruff: noqa: ASYNC240  # nothing else waits for this loop

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError
from support.states import state

from ari_gemini.config import load_config
from ari_gemini.errors import ConfigError
from ari_gemini.state.directory import DirectoryStore
from ari_gemini.state.memory import MemoryStore
from ari_gemini.state.redis import RedisStore
from ari_gemini.state.settings import StateSettings, default_directory, open_store

URL = "redis://user:pass-w0rd@127.0.0.1:6379/3"
PASSWORD = "pass-w0rd"
LONE = {"GEMINI_API_KEY": "key", "ARI_GEMINI__AUDIOSOCKET__VERIFY": "none"}


def test_nothing_need_be_written() -> None:
    settings = StateSettings()
    assert (settings.store, settings.directory, settings.url) == ("directory", None, None)
    assert (settings.lifetime, settings.timeout) == (7200, 1)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ({"store": "disk"}, "Input should be 'directory', 'memory' or 'redis'"),
        ({"directory": "calls"}, "must be an absolute path"),
        ({"store": "redis"}, 'store = "redis" needs an address'),
        ({"url": "http://x"}, "must begin with redis:// or rediss://"),
        ({"url": "redis://:pass-w0rd@"}, "names no host"),
        ({"url": "redis://:pass w0rd@x"}, "plain ASCII without blanks"),
        ({"url": "redis://:pass-w0rd@x:port"}, "not a valid URL: bad host or port"),
        ({"url": "redis://:pass-w0rd/1@x"}, "not a valid URL: bad host or port"),
        ({"url": "redis://:pass-w0rd@[x"}, "not a valid URL: bad host or port"),
        ({"url": "redis://:pass-w0rd@x/one"}, "must end after the host"),
        ({"url": "redis://:pass-w0rd@x/0?retry=1"}, "must end after the host"),
        ({"url": "redis://:pass-w0rd@x#y"}, "must end after the host"),
        ({"lifetime": 0}, "greater than or equal to 1"),
        ({"lifetime": float("nan")}, "finite"),
        ({"timeout": 0}, "greater than 0"),
        ({"timeout": 61}, "less than or equal to 60"),
        ({"ca_file": "/none"}, "Path does not point to a file"),
        ({"path": "/x"}, "Extra inputs are not permitted"),
    ],
)
def test_a_mistake_is_said_without_the_password(raw: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as wrong:
        StateSettings(**raw)
    assert said in str(wrong.value)
    assert PASSWORD not in str(wrong.value)


@pytest.mark.parametrize("url", [URL, "rediss://x", "redis://:a%40b@[::1]:1/", " redis://x/0\n"])
def test_addresses_of_redis(url: str) -> None:
    settings = StateSettings(store="redis", url=SecretStr(url))
    assert settings.url == SecretStr(url.strip())
    assert isinstance(open_store(settings, {}), RedisStore)


def test_an_empty_address_is_none() -> None:
    assert StateSettings(url=SecretStr(" ")).url is None


def test_the_address_comes_from_environment_or_file(tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text(URL + "\n")
    redis = {**LONE, "ARI_GEMINI__STATE__STORE": "redis"}
    for given in ({"ARI_GEMINI_STATE_URL": URL}, {"ARI_GEMINI_STATE_URL_FILE": str(file)}):
        config = load_config(None, redis | given)
        assert config.state.url == SecretStr(URL)
        assert PASSWORD not in repr(config) + config.model_dump_json()
    toml = tmp_path / "ari-gemini.toml"
    toml.write_text(f'[state]\nstore = "redis"\nurl_file = "{file}"\n')
    assert load_config(toml, LONE).state.url == SecretStr(URL)
    with pytest.raises(
        ConfigError, match=r'state: store = "redis" needs an address: set ARI_GEMINI_STATE_URL'
    ):
        load_config(None, redis)
    with pytest.raises(
        ConfigError, match=r"^environment ARI_GEMINI_STATE_URL: state.url: must begin"
    ) as wrong:
        load_config(None, redis | {"ARI_GEMINI_STATE_URL": URL.replace("redis", "http")})
    assert PASSWORD not in str(wrong.value)


@pytest.mark.parametrize(
    ("environ", "found"),
    [
        ({"STATE_DIRECTORY": "/var/lib/ari-gemini:/var/lib/more", "HOME": "HOME"}, "/var/lib/ari-gemini"),
        ({"STATE_DIRECTORY": "", "XDG_STATE_HOME": "/x", "HOME": "HOME"}, "/x/ari-gemini"),
        ({"XDG_STATE_HOME": "relative", "HOME": "HOME"}, "HOME/.local/state/ari-gemini"),
        ({"HOME": "/nonexistent", "TMPDIR": "/tmp/x"}, f"/tmp/x/ari-gemini-{os.geteuid()}"),
        ({"TMPDIR": "/tmp/x"}, f"/tmp/x/ari-gemini-{os.geteuid()}"),
    ],
)
def test_the_default_directory(environ: dict[str, str], found: str, tmp_path: Path) -> None:
    environ = {name: value.replace("HOME", str(tmp_path)) for name, value in environ.items()}
    assert default_directory(environ) == Path(found.replace("HOME", str(tmp_path)))


async def test_a_newcomer_needs_nothing_and_finds_it_again(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path)}
    for operation in ("save", "load"):
        store = open_store(StateSettings(timeout=10), environ)
        assert isinstance(store, DirectoryStore)
        if operation == "save":
            assert list(tmp_path.iterdir()) == []
            await store.save(state())
        else:
            assert await store.load(state().call_id) == state()
        await store.close()
    assert len(list((tmp_path / ".local/state/ari-gemini/calls").iterdir())) == 1


async def test_a_directory_of_the_operator_is_left_as_it_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o775)
    store = open_store(StateSettings(directory=tmp_path, timeout=10), {"STATE_DIRECTORY": "/nowhere"})
    await store.save(state())
    await store.close()
    assert [path.name for path in tmp_path.iterdir()] == ["calls"]
    assert tmp_path.stat().st_mode & 0o777 == 0o775


def test_memory() -> None:
    assert isinstance(open_store(StateSettings(store="memory"), {}), MemoryStore)


def test_without_the_library_only_redis_is_refused() -> None:
    source = """
import sys
sys.modules["redis"] = None
from importlib import util
found = util.find_spec
util.find_spec = lambda name: None if name == "redis" else found(name)
from ari_gemini.errors import ConfigError
from ari_gemini.state.settings import StateSettings, open_store
open_store(StateSettings(), {"HOME": "/nonexistent"})
try:
    open_store(StateSettings(store="redis", url="redis://x"), {})
except ConfigError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stderr == ""
    assert done.stdout == "state.store: redis needs another package: pip install 'ari-gemini[redis]'\n"
