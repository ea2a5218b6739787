"""Dockerfiles and compose file, as far as it goes without an engine: every name leads somewhere."""

from __future__ import annotations

import ipaddress
import re
import shlex
import subprocess
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

from ari_gemini import app
from ari_gemini.call.drain import DrainSettings
from ari_gemini.config import SECRETS, load_config
from ari_gemini.state.settings import default_directory

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILES = ("Dockerfile", "asterisk.Dockerfile")


def interpolated(text: str) -> str:
    """``text`` with every ``${NAME:-default}`` at its default, as an empty environment has it."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    text = (DEPLOY / "compose.yaml").read_text()
    parsed: dict[str, Any] = yaml.safe_load(interpolated(text))
    return parsed


def environment(compose: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = compose["services"]["ari-gemini"]["environment"]
    return found


def instructions(dockerfile: str) -> Iterator[tuple[str, str]]:
    text = re.sub(r"\\\n", "", (DEPLOY / dockerfile).read_text())
    for line in text.splitlines():
        if line and not line.startswith(("#", " ")):
            keyword, rest = line.split(maxsplit=1)
            yield keyword, rest


def sources(dockerfile: str) -> list[str]:
    """What is copied in from the repository."""
    copies = [rest.split() for keyword, rest in instructions(dockerfile) if keyword == "COPY"]
    return [source for words in copies if not words[0].startswith("--from") for source in words[:-1]]


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_what_is_copied_exists_and_is_sent_to_the_builder(dockerfile: str) -> None:
    rules = (ROOT / ".dockerignore").read_text().splitlines()
    sent = [rule[1:] for rule in rules if rule.startswith("!")]
    assert "*" in rules
    assert sources(dockerfile)
    for source in sources(dockerfile):
        assert list(ROOT.glob(source)), source
        assert any(fnmatch(source.rstrip("/"), rule) or source == rule for rule in sent), source


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_nothing_runs_as_root(dockerfile: str) -> None:
    keywords = [keyword for keyword, _ in instructions(dockerfile)]
    users = [rest for keyword, rest in instructions(dockerfile) if keyword == "USER"]
    assert users[-1] not in ("root", "0")
    assert keywords.index("USER") < keywords.index("ENTRYPOINT")


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_health_and_stop_are_said(dockerfile: str) -> None:
    said = dict(instructions(dockerfile))
    assert "CMD" in said["HEALTHCHECK"]
    assert said["STOPSIGNAL"] == "SIGTERM"


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_no_secret_is_baked_in(dockerfile: str) -> None:
    set_values = " ".join(rest for keyword, rest in instructions(dockerfile) if keyword in ("ENV", "ARG"))
    assert not re.search(r"(?i)(key|password|secret|token)=", set_values)


def test_of_the_packages_files_the_tones_are_kept(tmp_path: Path) -> None:
    """Without indications.conf no tone is heard: none of waiting, none of congestion."""
    for name in ("indications.conf", "sip.conf", "more/extra.conf"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (run,) = (rest for keyword, rest in instructions("asterisk.Dockerfile") if keyword == "RUN")
    steps = [shlex.split(step) for step in run.split("&&")]
    (arguments,) = (words[2:] for words in steps if words[:2] == ["find", "/etc/asterisk"])
    subprocess.run(["find", str(tmp_path), *arguments], timeout=30, check=True)
    removed = [word for words in steps if words[0] == "rm" for word in words]
    assert not any("/etc/asterisk" in word for word in removed)
    assert [path.name for path in tmp_path.iterdir()] == ["indications.conf"]


def test_what_is_built_and_mounted_exists(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        context = (DEPLOY / service["build"]["context"]).resolve()
        assert context == ROOT
        assert (context / service["build"]["dockerfile"]).is_file()
    for config in compose["configs"].values():
        assert (DEPLOY / config["file"]).is_file()
    site = next(v for v in compose["services"]["asterisk"]["volumes"] if v.endswith("/etc/asterisk/site:ro"))
    assert (DEPLOY / site.split(":")[0]).is_dir()


def test_names_inside_lead_somewhere(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        assert set(service["secrets"]) <= compose["secrets"].keys()
        assert set(service["networks"]) <= compose["networks"].keys()
        named = [volume.split(":")[0] for volume in service.get("volumes", []) if volume[0] not in "./"]
        assert set(named) <= compose["volumes"].keys()
        assert {config["source"] for config in service.get("configs", [])} <= compose["configs"].keys()
        files = {value for name, value in service["environment"].items() if name.endswith("_FILE")}
        assert files == {f"/run/secrets/{name}" for name in service["secrets"]}


def test_secrets_stay_out_of_git(compose: dict[str, Any]) -> None:
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    for secret in compose["secrets"].values():
        assert f"/deploy/{Path(secret['file']).parent}/" in ignored


def test_only_sip_and_sound_are_published(compose: dict[str, Any]) -> None:
    published = {
        name: service["ports"] for name, service in compose["services"].items() if "ports" in service
    }
    assert published == {"asterisk": ["5060:5060/udp", "10000-10199:10000-10199/udp"]}
    given = compose["services"]["asterisk"]["environment"]
    assert (given["RTP_START"], given["RTP_END"]) == (10000, 10199)
    assert ("EXPOSE", "5060/udp 10000-10199/udp") in instructions("asterisk.Dockerfile")


def test_the_containers_meet_on_the_closed_network_alone(compose: dict[str, Any]) -> None:
    services = compose["services"]
    shared = set(services["ari-gemini"]["networks"]) & set(services["asterisk"]["networks"])
    assert shared == {"control"}
    assert compose["networks"]["control"]["internal"] is True


def test_both_containers_are_locked_down(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert "privileged" not in service
        assert "cap_add" not in service


def test_user_numbers_agree(compose: dict[str, Any]) -> None:
    (uid,) = re.findall(r"useradd --system --uid (\d+)", (DEPLOY / "asterisk.Dockerfile").read_text())
    tmpfs = [entry for entry in compose["services"]["asterisk"]["tmpfs"] if "uid=" in entry]
    assert tmpfs
    assert all(f"uid={uid},gid={uid}," in entry for entry in tmpfs)


def test_the_service_starts_with_what_compose_gives_it(compose: dict[str, Any], tmp_path: Path) -> None:
    environ = environment(compose)
    secret_files = {}
    for secret in (secret for secret in SECRETS if not secret.optional):
        path = tmp_path / secret.env
        path.write_text("s3cret\n")
        secret_files[secret.env_file] = str(path)
    assert secret_files.keys() == {name for name in environ if name.endswith("_FILE")}

    config = load_config(DEPLOY / compose["configs"]["ari-gemini"]["file"], {**environ, **secret_files})

    subnet = ipaddress.ip_network(compose["networks"]["control"]["ipam"]["config"][0]["subnet"])
    assert config.ari is not None
    assert config.ari.url == "http://asterisk:8088"
    assert config.audiosocket.allow_from == (subnet,)
    assert config.audiosocket.listen_address.is_wildcard
    assert config.audiosocket.advertise == "ari-gemini:9092"
    assert compose["services"]["asterisk"]["environment"]["AUDIOSOCKET"] == config.audiosocket.advertise


def test_the_calls_states_outlive_the_container(compose: dict[str, Any]) -> None:
    said = list(instructions("Dockerfile"))
    (volume,) = re.findall(r"STATE_DIRECTORY=(\S+)", " ".join(rest for word, rest in said if word == "ENV"))
    assert ("VOLUME", volume) in said
    assert any(f"install -d -m 0700 -o ari-gemini -g ari-gemini {volume}" in rest for _, rest in said)
    assert default_directory({"STATE_DIRECTORY": volume}) == Path(volume)
    kept = [entry.split(":") for entry in compose["services"]["ari-gemini"]["volumes"]]
    assert volume in [place for _, place in kept]


@pytest.mark.parametrize("lock", ["runtime.lock", "mcp.lock", "redis.lock"])
def test_every_lock_can_be_built_with(lock: str) -> None:
    assert f"requirements/{lock}" in sources("Dockerfile")


def test_the_lock_to_build_with_is_the_compose_files_to_say(compose: dict[str, Any]) -> None:
    arguments = compose["services"]["ari-gemini"]["build"]["args"]
    assert {f"{name}={value}" for name, value in arguments.items()} == {
        rest for keyword, rest in instructions("Dockerfile") if keyword == "ARG"
    }


def test_stopping_is_given_the_time_it_takes(compose: dict[str, Any]) -> None:
    patience = int(compose["services"]["ari-gemini"]["stop_grace_period"].removesuffix("s"))
    assert patience >= DrainSettings().timeout + app.STOP_SECONDS + app.SPARE_SECONDS
