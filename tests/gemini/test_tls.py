from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from ari_gemini.errors import SessionRefused
from ari_gemini.gemini.tls import client_tls


async def test_the_systems_authorities_or_only_those_of_the_file(certificate: Path) -> None:
    assert (await client_tls(None)).verify_mode is ssl.CERT_REQUIRED
    mine = await client_tls(certificate)
    assert [dict(sum(one["subject"], ())) for one in mine.get_ca_certs()] == [
        {"commonName": "ari-gemini tests"}
    ]
    assert await client_tls(certificate) is mine, "read once"


@pytest.mark.parametrize("content", [None, "not a certificate"])
async def test_a_file_that_holds_none(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SessionRefused, match=f"cannot read certificates from {path}"):
        await client_tls(path)
