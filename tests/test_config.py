"""Configuration: what an operator may write, and one clear line for each mistake, never a secret in it."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ari_gemini.config import MAX_SECRET_BYTES, Config, load_config, load_token_config
from ari_gemini.errors import ConfigError
from ari_gemini.realtime.session import ActivityDetection

KEY = "AIza-the-key"
PASSWORD = "the-password"
SECRETS = {"GEMINI_API_KEY": KEY, "ARI_PASSWORD": PASSWORD}
ARI = '[ari]\nusername = "gemini"\n'
LONE = '[audiosocket]\nverify = "none"\n'

KNOWN = """caller_number, caller_name, called_number \
nor listed in variables (write {{who}} for the plain text)"""

FULL = """
[ari]
url = "http://127.0.0.1:8088"
username = "gemini"
app = "ari-gemini"
[audiosocket]
listen = "127.0.0.1:9092"
advertise = "127.0.0.1:9092"     # what Asterisk dials
verify = "ari"                   # or "none"
allow_from = ["127.0.0.1/32"]
[gemini]
base_url = "wss://generativelanguage.googleapis.com"
model = "gemini-3.8-live"
[calls]
max_calls = 200
answer = "when_ready"
setup_timeout = 5.0
[agents.default]
voice = "Aoede"
language = "en-US"
instructions = "You are a helpful assistant."
greeting = "Greet the caller."
"""

Load = Callable[..., Config]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Writes a file and loads it; environment variables as keyword arguments, besides the secrets."""

    def write_and_load(toml: str, secrets: dict[str, str] = SECRETS, **environ: str) -> Config:
        path = tmp_path / "ari-gemini.toml"
        path.write_text(toml, encoding="utf-8")
        return load_config(path, secrets | environ)

    return write_and_load


@pytest.fixture
def mistakes(load: Load, tmp_path: Path) -> Callable[..., list[str]]:
    """The lines of the error, the file's name shortened; there is no secret in them or around them."""

    def load_and_fail(toml: str, secrets: dict[str, str] = SECRETS, **environ: str) -> list[str]:
        with pytest.raises(ConfigError) as wrong:
            load(toml, secrets, **environ)
        text = str(wrong.value)
        hidden = wrong.value.__context__ is None or wrong.value.__suppress_context__
        assert hidden, "a traceback would show what was written"
        assert KEY not in text
        assert PASSWORD not in text
        return [line.replace(f"{tmp_path}/ari-gemini.toml", "FILE") for line in text.splitlines()]

    return load_and_fail


def test_every_fixed_name_is_accepted(load: Load) -> None:
    config = load(FULL)
    assert config.ari is not None
    assert (config.ari.url, config.ari.username, config.ari.app) == (
        "http://127.0.0.1:8088",
        "gemini",
        "ari-gemini",
    )
    assert (config.audiosocket.listen, config.audiosocket.advertise) == ("127.0.0.1:9092", "127.0.0.1:9092")
    assert config.audiosocket.verify == "ari"
    assert config.audiosocket.allow_from == (ipaddress.ip_network("127.0.0.1/32"),)
    assert config.gemini.base_url == "wss://generativelanguage.googleapis.com"
    assert config.gemini.model == "gemini-3.8-live"
    assert (config.calls.max_calls, config.calls.answer, config.calls.setup_timeout) == (
        200,
        "when_ready",
        5.0,
    )
    agent = config.agents["default"]
    assert (agent.voice, agent.language, agent.greeting) == ("Aoede", "en-US", "Greet the caller.")
    assert agent.instructions == "You are a helpful assistant."


def test_the_fixed_values_are_the_defaults(load: Load) -> None:
    full, short = load(FULL), load(ARI)
    assert short.ari == full.ari
    assert short.gemini == full.gemini
    assert short.calls == full.calls
    assert short.audiosocket.listen == full.audiosocket.listen
    assert list(short.agents) == ["default"]


def test_secrets_are_there_and_nowhere_to_be_seen(load: Load) -> None:
    config = load(FULL)
    assert config.gemini.api_key is not None
    assert config.ari is not None
    assert config.ari.password is not None
    assert config.gemini.api_key.get_secret_value() == KEY
    assert config.ari.password.get_secret_value() == PASSWORD
    for shown in (repr(config), str(config), repr(config.gemini), str(config.ari), config.model_dump_json()):
        assert KEY not in shown
        assert PASSWORD not in shown


def test_an_agents_own_settings(load: Load) -> None:
    config = load(
        FULL
        + """
variables = ["ORDER"]
transcribe_caller = false
[agents.default.activity_detection]
start_sensitivity = "low"
end_sensitivity = "high"
prefix_padding_ms = 40
silence_duration_ms = 300
interruptions = false
turn_coverage = "all_input"
[agents.sales]
instructions = "{caller_name} {{literal}}"
"""
    )
    agent = config.agents["default"]
    assert agent.variables == ("ORDER",)
    assert agent.transcribe_caller is False
    assert agent.activity_detection == ActivityDetection(
        start_sensitivity="low",
        end_sensitivity="high",
        prefix_padding_ms=40,
        silence_duration_ms=300,
        interruptions=False,
        turn_coverage="all_input",
    )
    assert set(config.agents) == {"default", "sales"}


def test_without_asterisk_control(load: Load) -> None:
    config = load(LONE, {"GEMINI_API_KEY": KEY, "ARI_PASSWORD": PASSWORD})
    assert config.ari is None


def test_without_a_file() -> None:
    config = load_config(None, SECRETS | {"ARI_GEMINI__ARI__USERNAME": "gemini"})
    assert config.ari is not None
    assert config.ari.username == "gemini"
    with pytest.raises(ConfigError, match=r"^\(no file\): gemini.api_key: missing"):
        load_config(None, {"ARI_GEMINI__AUDIOSOCKET__VERIFY": "none"})


def test_the_process_environment_is_not_read(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARI_GEMINI__CALLS__MAX_CALLS", "7")
    monkeypatch.setenv("GEMINI_API_KEY", "another")
    config = load(ARI)
    assert config.calls.max_calls == 200
    assert config.gemini.api_key is not None
    assert config.gemini.api_key.get_secret_value() == KEY


@pytest.mark.parametrize(
    ("toml", "line"),
    [
        ("", 'FILE: audiosocket.verify: "ari" needs an [ari] section; without one say "none"'),
        ("[ari]\n", "FILE: ari.username: Field required"),
        (ARI + 'user = "x"\n', "FILE: ari.user: unknown key"),
        (ARI + "[call]\n", "FILE: call: unknown key"),
        (ARI + "[calls]\nmax = 1\n", "FILE: calls.max: unknown key"),
        (ARI + "[agents.default]\nvoices = 1\n", "FILE: agents.default.voices: unknown key"),
        (
            ARI + "[agents.default.activity_detection]\nsilence = 1\n",
            "FILE: agents.default.activity_detection.silence: unknown key",
        ),
        ("ari = 3\n", "FILE: ari: Input should be a valid dictionary or instance of AriSettings"),
        (
            "gemini = 3\n" + ARI,
            "FILE: gemini: Input should be a valid dictionary or instance of GeminiSettings",
        ),
        (ARI + 'url = "ftp://x"\n', "FILE: ari.url: must begin with http:// or https://"),
        (ARI + '[gemini]\nbase_url = "http://x"\n', "FILE: gemini.base_url: must begin with ws:// or wss://"),
        (ARI + '[audiosocket]\nlisten = "9092"\n', "FILE: audiosocket.listen: '9092' is not host:port"),
        (
            ARI + '[audiosocket]\nallow_from = ["10.0.0.1/8"]\n',
            "FILE: audiosocket.allow_from: 10.0.0.1/8 has host bits set",
        ),
        (
            ARI + '[audiosocket]\nverify = "no"\n',
            "FILE: audiosocket.verify: Input should be 'ari' or 'none'",
        ),
        (
            ARI + '[calls]\nanswer = "later"\n',
            "FILE: calls.answer: Input should be 'when_ready' or 'immediately'",
        ),
        (ARI + "[calls]\nsetup_timeout = 0\n", "FILE: calls.setup_timeout: Input should be greater than 0"),
        (
            ARI + '[agents.sales]\nvoice = "x"\n',
            "FILE: agents.default: missing; it answers callers for whom nobody is named",
        ),
        (
            ARI + '[agents.default]\nthinking = "low"\n',
            "FILE: agents.default: model gemini-3.8-live takes no thinking setting: remove thinking = 'low'",
        ),
        (
            ARI + '[agents.default]\ngreeting = "Hi {who}"\n',
            "FILE: agents.default: greeting: {who} is neither " + KNOWN,
        ),
        (
            ARI + '[log]\nlevel = "loud"\n',
            "FILE: log.level: Input should be 'debug', 'info', 'warning' or 'error'",
        ),
    ],
)
def test_a_mistake_is_one_line_that_names_file_and_key(mistakes: Callable, toml: str, line: str) -> None:
    assert mistakes(toml) == [line]


def test_all_mistakes_are_told_at_once(mistakes: Callable) -> None:
    found = mistakes(ARI + "nope = 1\n[calls]\nmax_calls = 0\n[extra]\nx = 1\n")
    assert [line.split(": ")[:2] for line in found] == [
        ["FILE", "ari.nope"],
        ["FILE", "calls.max_calls"],
        ["FILE", "extra"],
    ]


def test_what_is_not_toml(mistakes: Callable, tmp_path: Path) -> None:
    (line,) = mistakes("[ari\n")
    assert line.startswith("FILE: not TOML: ")
    path = tmp_path / "bytes.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"bytes\.toml: not TOML"):
        load_config(path, SECRETS)
    with pytest.raises(ConfigError, match=r"absent\.toml: cannot be read: No such file or directory"):
        load_config(tmp_path / "absent.toml", SECRETS)
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_config(tmp_path, SECRETS)


# The environment.


def test_the_environment_is_stronger_than_the_file(load: Load) -> None:
    config = load(
        FULL,
        ARI_GEMINI__ARI__URL="https://pbx:8089/",
        ARI_GEMINI__AUDIOSOCKET__ALLOW_FROM='["10.0.0.0/8", "::1/128"]',
        ARI_GEMINI__CALLS__MAX_CALLS="7",
        ARI_GEMINI__AGENTS__DEFAULT__VOICE="Puck",
        ARI_GEMINI__AGENTS__DEFAULT__VARIABLES='["ORDER", "LANG"]',
        ARI_GEMINI__AGENTS__DEFAULT__ACTIVITY_DETECTION__SILENCE_DURATION_MS="250",
        ARI_GEMINI__AGENTS__DEFAULT__CONTEXT_COMPRESSION="null",
        ARI_GEMINI__AGENTS__SALES__LANGUAGE="de-DE",
        ARI_GEMINI__LOG__FORMAT="json",
    )
    assert config.ari is not None
    assert config.ari.url == "https://pbx:8089"
    assert config.ari.username == "gemini", "the rest of the section stays"
    assert config.audiosocket.allow_from == (
        ipaddress.ip_network("10.0.0.0/8"),
        ipaddress.ip_network("::1/128"),
    )
    assert config.calls.max_calls == 7
    agent = config.agents["default"]
    assert (agent.voice, agent.language) == ("Puck", "en-US")
    assert agent.variables == ("ORDER", "LANG")
    assert agent.activity_detection.silence_duration_ms == 250
    assert agent.context_compression is None
    assert config.agents["sales"].language == "de-DE"
    assert config.log.format == "json"


def test_a_whole_section_as_json(load: Load) -> None:
    config = load(FULL, ARI_GEMINI__CALLS=json.dumps({"max_calls": 3}))
    assert (config.calls.max_calls, config.calls.setup_timeout) == (3, 5.0)


def test_text_that_looks_like_something_else_stays_text(load: Load) -> None:
    for text in ('{"a": 1} [x', "123", "true", "[]"):
        config = load(ARI, ARI_GEMINI__AGENTS__DEFAULT__INSTRUCTIONS=text)
        assert config.agents["default"].instructions == text


def test_case_does_not_matter_in_the_names_of_variables(load: Load) -> None:
    config = load(
        ARI + '[agents.default]\n[agents.Sales]\nvoice = "Puck"\n',
        ari_gemini__calls__max_calls="9",
        ARI_GEMINI__AGENTS__SALES__LANGUAGE="de-DE",
    )
    assert config.calls.max_calls == 9
    assert set(config.agents) == {"default", "Sales"}
    assert (config.agents["Sales"].voice, config.agents["Sales"].language) == ("Puck", "de-DE")


@pytest.mark.parametrize(
    ("name", "value", "rest"),
    [
        ("ARI_GEMINI__CALL__MAX", "1", "there is no section [call]"),
        ("ARI_GEMINI__", "1", "there is no section []"),
        ("ARI_GEMINI__CALLS__NOPE", "1", "calls.nope: unknown key"),
        ("ARI_GEMINI__CALLS__MAX_CALLS", "many", "calls.max_calls: Input should be a valid integer"),
        ("ARI_GEMINI__CALLS__MAX_CALLS", "", "calls.max_calls: Input should be a valid integer"),
        ("ARI_GEMINI__CALLS", "max_calls=3", "calls: Input should be a valid dictionary"),
        ("ARI_GEMINI__CALLS", "3", "calls: Input should be a valid dictionary"),
        (
            "ARI_GEMINI__AUDIOSOCKET__ALLOW_FROM",
            "10.0.0.0/8",
            "audiosocket.allow_from: takes a list of networks",
        ),
        ("ARI_GEMINI__AGENTS__DEFAULT__VARIABLES", "ORDER", "agents.default.variables: Input should be a"),
        ("ARI_GEMINI__AGENTS__DEFAULT", "Puck", "agents.default: Input should be a valid dictionary"),
        ("ARI_GEMINI__AGENTS", "[]", "agents: Input should be a valid dictionary"),
        ("ARI_GEMINI__AGENTS__DEFAULT__VOICES", "x", "agents.default.voices: unknown key"),
        ("GEMINI_API_KEY", f"{KEY} ", None),
        ("GEMINI_API_KEY", f"{KEY} {KEY}", "gemini.api_key: must be printable ASCII without blanks"),
    ],
)
def test_a_mistake_in_the_environment_names_the_variable(
    load: Load, mistakes: Callable, name: str, value: str, rest: str | None
) -> None:
    if rest is None:  # a blank at the end is no mistake
        assert load(ARI, **{name: value}).gemini.api_key.get_secret_value() == KEY
        return
    found = mistakes(ARI, **{name: value})
    if name.endswith("__"):
        assert found == [f"environment {name}: {rest}"]
    assert len(found) == 1
    if value:
        assert found[0].startswith(f"environment {name}: {rest}")


# Secrets.


def test_missing_secrets(mistakes: Callable) -> None:
    assert mistakes(ARI, {}) == ["FILE: gemini.api_key: missing; set GEMINI_API_KEY or gemini.api_key_file"]
    assert mistakes(ARI, {"GEMINI_API_KEY": KEY}) == [
        "FILE: ari.password: missing; set ARI_PASSWORD or ari.password_file"
    ]
    assert mistakes(LONE, {"GEMINI_API_KEY": ""}) == [
        "FILE: gemini.api_key: missing; set GEMINI_API_KEY or gemini.api_key_file"
    ]


@pytest.mark.parametrize("source", ["variable", "variable's file", "key", "key's file", "prefixed variable"])
def test_where_a_secret_may_come_from(load: Load, tmp_path: Path, source: str) -> None:
    """Each source alone, and stronger than all that are named after it."""
    (tmp_path / "secret").write_text("from a file\n".replace(" ", "-"))
    sources = {
        "variable": ({"GEMINI_API_KEY": "from-variable"}, "", "from-variable"),
        "variable's file": ({"GEMINI_API_KEY_FILE": str(tmp_path / "secret")}, "", "from-a-file"),
        "prefixed variable": ({"ARI_GEMINI__GEMINI__API_KEY": "from-prefixed"}, "", "from-prefixed"),
        "key": ({}, 'api_key = "from-key"\n', "from-key"),
        "key's file": ({}, f'api_key_file = "{tmp_path}/secret"\n', "from-a-file"),
    }
    environ, toml, expected = sources[source]
    weaker = list(sources)[list(sources).index(source) + 1 :]
    for others in ([], weaker):
        merged = dict(environ)
        keys = toml
        for other in others:
            merged |= sources[other][0]
            keys += sources[other][1]
        config = load(LONE + "[gemini]\n" + keys, merged)
        assert config.gemini.api_key is not None
        assert config.gemini.api_key.get_secret_value() == expected


def test_the_password_from_files(load: Load, tmp_path: Path) -> None:
    (tmp_path / "pw").write_text(f"{PASSWORD}\n")
    for toml, environ in (
        (ARI + f'password_file = "{tmp_path}/pw"\n', {}),
        (ARI, {"ARI_PASSWORD_FILE": f"{tmp_path}/pw"}),
        (ARI, {"ARI_GEMINI__ARI__PASSWORD_FILE": f"{tmp_path}/pw"}),
        (ARI + f'password = "{PASSWORD}"\n', {}),
    ):
        config = load(toml, {"GEMINI_API_KEY": KEY} | environ)
        assert config.ari is not None
        assert config.ari.password is not None
        assert config.ari.password.get_secret_value() == PASSWORD


def test_an_empty_variable_counts_as_not_set(load: Load, tmp_path: Path) -> None:
    """As container files write it when nothing is given."""
    config = load(LONE + f'[gemini]\napi_key = "{KEY}"\n', {"GEMINI_API_KEY": "", "GEMINI_API_KEY_FILE": ""})
    assert config.gemini.api_key is not None
    assert config.gemini.api_key.get_secret_value() == KEY


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "the secret cannot be read: No such file or directory"),
        (b"", "the file is empty"),
        (b" \n", "the file is empty"),
        (b"\xff\xfe\xff", "the secret cannot be read: not text"),
        (b"x" * (MAX_SECRET_BYTES + 1), f"a secret of more than {MAX_SECRET_BYTES} bytes"),
    ],
)
def test_a_secret_file_that_is_none(
    mistakes: Callable, tmp_path: Path, content: bytes | None, reason: str
) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    toml = LONE + f'[gemini]\napi_key_file = "{path}"\n'
    assert mistakes(toml, {}) == [f"FILE: gemini.api_key_file: {reason}"]
    assert mistakes(LONE, {"GEMINI_API_KEY_FILE": str(path)}) == [
        f"environment GEMINI_API_KEY_FILE: {reason}"
    ]


@pytest.mark.parametrize("key", ["api_key", "api_keys"])
def test_a_secret_in_the_wrong_place_or_shape_is_not_shown(mistakes: Callable, key: str) -> None:
    (line,) = mistakes(
        LONE + f'[gemini]\n{key} = ["{KEY}"]\n', {"GEMINI_API_KEY": ""} if key == "api_key" else SECRETS
    )
    assert line.startswith(f"FILE: gemini.{key}: ")


BROKERED = LONE + '[gemini]\nauth = "ephemeral"\nbroker_url = "https://broker.test"\n'
BROKER_SECRET = "broker-secret-0123456789"


def test_with_a_broker_no_key_is_asked_for(load: Load, tmp_path: Path) -> None:
    config = load(BROKERED, {}, ARI_GEMINI_BROKER_SECRET=BROKER_SECRET)
    assert config.gemini.api_key is None
    assert config.gemini.broker_secret is not None
    assert config.gemini.broker_secret.get_secret_value() == BROKER_SECRET
    file = tmp_path / "secret"
    file.write_text(f"{BROKER_SECRET}\n")
    for way in (
        load(BROKERED, {}, ARI_GEMINI_BROKER_SECRET_FILE=str(file)),
        load(f'{BROKERED}broker_secret_file = "{file}"\n', {}),
    ):
        assert way.gemini == config.gemini


def test_without_a_broker_it_is(mistakes: Callable) -> None:
    missing = "gemini.api_key: missing; set GEMINI_API_KEY or gemini.api_key_file"
    assert mistakes(LONE + '[gemini]\nauth = "ephemeral"\n', {}) == [f"FILE: {missing}"]
    (line,) = mistakes(BROKERED, {})
    assert line.startswith("FILE: gemini: broker_url needs broker_secret; set ARI_GEMINI_BROKER_SECRET or ")


def test_a_bad_broker_secret_is_not_shown(mistakes: Callable) -> None:
    (line,) = mistakes(BROKERED, {}, ARI_GEMINI_BROKER_SECRET="short")
    assert (
        line == "environment ARI_GEMINI_BROKER_SECRET: gemini.broker_secret: must have at least 16 characters"
    )


def test_the_token_commands_ask_for_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text(
        '[ari]\nusername = "x"\npassword_file = "/nonexistent"\n[broker]\nlisten = "127.0.0.1:1"\n'
        '[tools.credentials.x]\nvalue_env = "ABSENT"\n[agents.sales]\nx = 1\n'
    )
    config = load_token_config(path, {"GEMINI_API_KEY": KEY, "ARI_GEMINI__BROKER__TOTAL_RATE": "3"})
    assert (config.broker.listen, config.broker.total_rate) == ("127.0.0.1:1", 3.0)
    assert config.gemini.api_key is not None
    path.write_text('[broker]\ncolour = "red"\n')
    with pytest.raises(ConfigError, match=r"c\.toml: broker\.colour: unknown key"):
        load_token_config(path, {})


def test_nothing_can_be_changed_afterwards(load: Load) -> None:
    config = load(ARI)
    with pytest.raises(ValueError, match="frozen"):
        config.calls = None  # type: ignore[assignment]


# Tools.

TOOLS = """
[agents.default]
tools = ["hangup_call", "api_call", "transfer_call", "order_status", "shop.find"]
filler_after = 2.0
[agents.default.transfer]
sales = "from-internal,200,1"
boss = { context = "from-internal", extension = "201", attended = true, ring_seconds = 15 }
[agents.default.digits]
sensitive = true
[tools.limits]
time_limit = 8
[tools.api_call]
allow = ["https://api.example.com/orders/"]
credentials = ["orders"]
[tools.credentials.orders]
origin = "https://api.example.com"
value_env = "ORDERS_TOKEN"
[tools.named.order_status]
description = "Looks up an order."
url = "https://api.example.com/orders/{order}"
credentials = "orders"
[tools.named.order_status.parameters]
order = { type = "string" }
[tools.mcp.shop]
command = ["shop-server"]
"""
TOKEN = "Bearer of-the-orders"
THERE_ARE = "hangup_call, send_dtmf, transfer_call, api_call, order_status, shop.(a tool of it)"


def test_tools(load: Load) -> None:
    config = load(ARI + TOOLS, ORDERS_TOKEN=TOKEN)
    agent = config.agents["default"]
    assert agent.tools == ("hangup_call", "api_call", "transfer_call", "order_status", "shop.find")
    assert {name: str(place) for name, place in agent.transfer.items()} == {
        "sales": "from-internal,200,1",
        "boss": "Local/201@from-internal/n, attended",
    }
    assert agent.digits.sensitive
    assert config.tools.limits.time_limit == 8
    assert config.tools.credentials["orders"].value.get_secret_value() == TOKEN
    assert TOKEN not in repr(config)
    catalogue = config.catalogue({})
    fixed = catalogue.fixed(agent.tools, agent.transfer)
    assert [tool.name for tool in fixed] == ["hangup_call", "api_call", "transfer_call", "order_status"]
    assert list(catalogue.servers) == ["shop"]


def test_a_credential_out_of_a_file(load: Load, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    config = load(ARI + TOOLS.replace('value_env = "ORDERS_TOKEN"', f'value_file = "{tmp_path}/token"'))
    assert config.tools.credentials["orders"].value.get_secret_value() == TOKEN


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        (
            '"hangup_call", ',
            '"hang_up", ',
            "FILE: agents.default: there is no tool 'hang_up'; there are: " + THERE_ARE,
        ),
        ('"hangup_call", ', '"api_call", ', "FILE: agents.default: tools: a name stands there twice"),
        (
            'sales = "from-internal,200,1"',
            'sales = "from-internal"',
            'FILE: agents.default.transfer.sales: must read "context,extension,priority"',
        ),
        (
            'value_env = "ORDERS_TOKEN"',
            'value_env = "NOT_SET"',
            "FILE: tools.credentials.orders.value_env: the environment has no NOT_SET",
        ),
        (
            'value_env = "ORDERS_TOKEN"',
            'value_env = "ORDERS_TOKEN"\nvalue = "x"',
            "FILE: tools.credentials.orders: give one of value, value_env and value_file",
        ),
        (
            'value_env = "ORDERS_TOKEN"',
            'value_file = "/nowhere/token"',
            "FILE: tools.credentials.orders.value_file: the secret cannot be read: No such file or directory",
        ),
        (
            'credentials = ["orders"]',
            'credentials = ["others"]',
            "FILE: tools: api_call.credentials: there is no credentials.others",
        ),
        (
            'allow = ["https://api.example.com/orders/"]\ncredentials = ["orders"]',
            "",
            "FILE: agents.default: tools.api_call.allow: is empty, so that api_call can be given to no agent",
        ),
    ],
)
def test_a_mistake_about_tools(mistakes: Callable, old: str, new: str, line: str) -> None:
    assert old in TOOLS
    assert mistakes(ARI + TOOLS.replace(old, new), ORDERS_TOKEN=TOKEN) == [line]


@pytest.mark.parametrize("secret", ["Bearer sk-0123", "sk-0123", "0123", "a" * 129, "", "TOKEN\\n", "TOKENÄ"])
def test_a_secret_in_place_of_a_variable_is_not_shown(mistakes: Callable, secret: str) -> None:
    text = TOOLS.replace('value_env = "ORDERS_TOKEN"', f'value_env = "{secret}"')
    says = "FILE: tools.credentials.orders.value_env: must be the name of an environment variable"
    assert mistakes(ARI + text) == [says]


def test_a_variable_of_any_proper_name_is_named(mistakes: Callable) -> None:
    name = "_" + "aZ9" * 42 + "_"
    assert len(name) == 128
    says = f"FILE: tools.credentials.orders.value_env: the environment has no {name}"
    assert mistakes(ARI + TOOLS.replace("ORDERS_TOKEN", name)) == [says]


def test_what_a_model_cannot_be_declared_is_said_at_the_start(mistakes: Callable) -> None:
    tuple_of = "{ type = 'array', prefixItems = [{ type = 'string' }] }"
    text = TOOLS.replace('order = { type = "string" }', f"order = {{ type = 'string' }}\nparts = {tuple_of}")
    (line,) = mistakes(ARI + text.replace('method = "GET"', ""), ORDERS_TOKEN=TOKEN)
    assert "prefixItems" in line


def test_the_environment_may_name_tools(load: Load) -> None:
    config = load(ARI, ARI_GEMINI__AGENTS__DEFAULT__TOOLS='["hangup_call", "send_dtmf"]')
    assert config.agents["default"].tools == ("hangup_call", "send_dtmf")
