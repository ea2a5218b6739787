"""The files of asterisk/, read as Asterisk 22 reads them (main/config.c), and what local/ changes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "asterisk"
EXAMPLE = FOLDER / "local.example"

LOGGER_KEYS = {
    "appendhostname",
    "custom_levels",
    "dateformat",
    "display_callids",
    "exec_after_rotate",
    "logger_queue_limit",
    "queue_log",
    "queue_log_name",
    "queue_log_realtime_use_gmt",
    "queue_log_to_file",
    "rotatestrategy",
}
"""All that init_logger_chain reads of [general] (main/logger.c)."""

Section = tuple[str, list[tuple[str, str]]]
"""Its name; its keys and values in order, without those of templates."""


def read(name: str, local: str | None) -> list[Section]:
    """The sections of our file ``name``, with ``local`` for local/``name``."""
    included = (FOLDER / name).read_text().replace(f"#tryinclude local/{name}", local or "")
    sections: list[Section] = []
    for line in (line.split(";")[0].strip() for line in included.splitlines()):
        if heading := re.fullmatch(r"\[([^]]+)\](?:\((.*)\))?", line):
            if heading[2] == "+":
                same = [section for section in sections if section[0] == heading[1]]
                assert same, f"{line}: there is no such section yet"
                current = same[0][1]
            else:
                current = []
                sections.append((heading[1], current))
        elif line:
            key, value = re.split(r"\s*=>?\s*", line, maxsplit=1)
            current.append((key, value))
    return sections


def first(sections: list[Section], section: str, key: str) -> str | None:
    """ast_variable_retrieve: of the first section of this name the first value."""
    values = next(values for name, values in sections if name == section)
    return next((value for found, value in values if found == key), None)


@pytest.mark.parametrize(
    ("name", "key", "ours"),
    [("rtp.conf", "rtpstart", "10000"), ("rtp.conf", "strictrtp", "yes"), ("logger.conf", "queue_log", "no")],
)
def test_where_the_first_value_counts_it_is_the_operators(name: str, key: str, ours: str) -> None:
    assert first(read(name, None), "general", key) == ours
    assert first(read(name, f"[general](+)\n{key} = other\n"), "general", key) == "other"


def test_log_channels_are_added() -> None:
    logfiles = dict(read("logger.conf", "[logfiles](+)\nmine.log => debug\n"))["logfiles"]
    assert [name for name, _ in logfiles] == ["mine.log", "console", "messages.log"]


def test_the_logger_reads_every_key_that_is_set() -> None:
    assert {key for key, _ in dict(read("logger.conf", None))["general"]} <= LOGGER_KEYS


# The dialplan.


def dialplan(context: str) -> dict[str, list[str]]:
    """Extension: its lines' applications, in order."""
    found: dict[str, list[str]] = {}
    for key, value in dict(read("extensions.conf", None))[context]:
        if key == "exten":
            extension, priority, application = value.split(",", 2)
            assert priority == "1"
            lines = found[extension] = [application]
        elif key == "same":
            lines.append(value.split(",", 1)[1])
    return found


def labels(context: str, extension: str) -> set[str]:
    lines = dict(read("extensions.conf", None))[context]
    at = [value.split(",")[0] if key == "exten" else None for key, value in lines]
    begin = at.index(extension)
    end = next((n for n in range(begin + 1, len(at)) if at[n] is not None), len(at))
    return {label for _, value in lines[begin:end] for label in re.findall(r"^n\((\w+)\)", value)}


def test_a_call_from_the_provider_is_taken_whatever_he_dials() -> None:
    """A number, or "s", which is the contact of a registration without a contact_user."""
    assert dialplan("from-trunk").keys() == {"_[+0-9].", "s"}


def test_the_service_learns_the_number_that_was_dialled() -> None:
    """ARI tells the extension in which Stasis() stands."""
    assert dialplan("from-trunk")["_[+0-9]."] == [
        dialplan("ari-gemini")["700"][0],
        "Goto(ari-gemini,700,back)",
    ]


def test_every_goto_leads_somewhere() -> None:
    text = (FOLDER / "extensions.conf").read_text()
    targets = re.findall(r"Goto\(([\w-]+),(\w+),(\w+)\)", text)
    assert len(targets) >= 4
    for context, extension, priority in targets:
        assert extension in dialplan(context)
        assert priority == "1" or priority in labels(context, extension)


# The example.


def provider() -> dict[str, dict[str, str]]:
    """The example's sections for a provider as they are once uncommented, by their type."""
    text = re.sub(r"^;(?=\S)", "", (EXAMPLE / "pjsip.conf").read_text(), flags=re.MULTILINE)
    sections = [dict(values) for _, values in read("pjsip.conf", text)]
    return {values["type"]: values for values in sections if "type" in values}


def test_a_registration_never_gives_up() -> None:
    """sip_outbound_registration_response: an interval of 0, the default, ends it at once."""
    registration = provider()["registration"]
    years = int(registration["max_retries"]) * 60 / (365 * 86400)
    assert years > 1
    assert int(registration["forbidden_retry_interval"]) > 0
    assert int(registration["fatal_retry_interval"]) > 0


def test_the_provider_is_told_what_to_dial() -> None:
    assert provider()["registration"]["contact_user"]


def test_the_way_to_the_provider_is_kept_open() -> None:
    """RFC 4787, 4.3: a router may forget a UDP mapping after two minutes, and many do after 30 s and more."""
    assert 0 < int(provider()["aor"]["qualify_frequency"]) <= 30


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLE.iterdir()))
def test_the_example_adds_to_what_exists(name: str) -> None:
    text = (EXAMPLE / name).read_text()
    read(name, text)
    read(name, re.sub(r"^;(?=\S)", "", text, flags=re.MULTILINE))
