from __future__ import annotations

import json
from typing import Any

import pytest

from ari_gemini.simulator.phrases import phrase

Json = dict[str, Any]

NATIVE = "models/gemini-2.5-flash-native-audio-latest"
OLDER = "models/gemini-3.1-flash-live-preview"
GREETING = phrase("greeting")


def greeted(paper_call: Any, model: str, **changes: Any) -> Any:
    call = paper_call("greeting", **changes)
    call.setup(model)
    call.text()
    call.finish()
    return call


def audio_frames(kit: Any, call: Any) -> list[Json]:
    return [message for message in call.wire.messages if kit.kind_of(message) == "audio"]


@pytest.mark.parametrize(
    ("model", "low_ms", "high_ms"),
    [("models/gemini-3.8-live", 160, 320), (OLDER, 160, 200), (NATIVE, 40, 60)],
)
def test_speech_arrives_whole_in_the_familys_pieces(
    paper_call: Any, kit: Any, model: str, low_ms: int, high_ms: int
) -> None:
    call = greeted(paper_call, model)
    pieces = [kit.sound(message) for message in audio_frames(kit, call)]
    assert b"".join(pieces) == GREETING.pcm
    assert all(low_ms * 48 <= len(piece) <= high_ms * 48 for piece in pieces[:-1])
    [said] = call.record.said
    assert said.pcm == GREETING.pcm
    assert (said.name, said.text, said.sent_text) == ("greeting", GREETING.text, GREETING.text)
    assert said.complete
    assert not said.interrupted


def test_a_transcript_shares_the_audios_message_on_3_8(paper_call: Any, kit: Any) -> None:
    call = greeted(paper_call, kit.LIVE)
    frames = audio_frames(kit, call)
    assert all(frame["serverContent"]["modelTurn"]["role"] == "model" for frame in frames)
    assert "outputTranscription" in frames[0]["serverContent"]
    texts = [frame["serverContent"].get("outputTranscription", {}).get("text", "") for frame in frames]
    assert "".join(texts) == GREETING.text
    assert "outputTranscription" not in call.wire.kinds


def test_a_transcript_has_messages_of_its_own_on_2_5(paper_call: Any, kit: Any) -> None:
    call = greeted(paper_call, NATIVE)
    frames = audio_frames(kit, call)
    assert not any("outputTranscription" in frame["serverContent"] for frame in frames)
    assert not any("role" in frame["serverContent"]["modelTurn"] for frame in frames)
    texts = [
        message["serverContent"]["outputTranscription"]["text"]
        for message in call.wire.messages
        if kit.kind_of(message) == "outputTranscription"
    ]
    assert len(texts) > 3
    assert "".join(texts) == GREETING.text


def test_no_transcript_unless_asked(paper_call: Any) -> None:
    call = paper_call("greeting")
    call.send({"setup": {"model": "models/gemini-3.8-live"}})
    call.settle(1)
    call.text()
    call.finish()
    assert not any(b"outputTranscription" in frame for frame in call.wire.frames)
    assert call.record.said[0].sent_text == GREETING.text


def test_speech_leaves_in_a_burst(paper_call: Any) -> None:
    call = greeted(paper_call, "models/gemini-3.8-live", pace=(4.0, 4.0))
    sent = call.record.of("audio")
    spread = sent[-1].at - sent[0].at
    before_last = GREETING.seconds - sent[-1].detail["bytes"] / 48_000
    assert spread == pytest.approx(before_last / 4.0)


def test_playback_is_waited_out_before_the_turn_is_complete(paper_call: Any) -> None:
    call = greeted(paper_call, "models/gemini-3.8-live")
    [first, *_] = call.record.of("audio")
    [generated] = call.record.of("generation_complete")
    [complete] = call.record.of("turn_complete")
    assert complete.at - first.at == pytest.approx(GREETING.seconds, abs=1e-6)
    assert generated.at < complete.at - GREETING.seconds / 2


def test_odd_frames_are_odd_and_lossless(paper_call: Any, kit: Any) -> None:
    call = paper_call("odd_frames")
    call.setup()
    call.text()
    call.finish()
    frames = audio_frames(kit, call)
    pieces = [kit.sound(frame) for frame in frames]
    assert b"".join(pieces) == GREETING.pcm
    assert {2, 15_360} <= {len(piece) for piece in pieces}
    data = "".join(frame["serverContent"]["modelTurn"]["parts"][0]["inlineData"]["data"] for frame in frames)
    assert {"-", "_"} & set(data)
    assert not {"+", "/"} & set(data)
    assert call.record.count("empty") > len(frames) // 3
    assert [frame for frame in call.wire.frames if isinstance(frame, str)] == ['{"serverContent":{}}']


def test_the_same_seed_says_it_the_same_way(paper_call: Any) -> None:
    once, again = (greeted(paper_call, "models/gemini-3.8-live", seed=5) for _ in range(2))
    other = greeted(paper_call, "models/gemini-3.8-live", seed=6)
    assert once.wire.frames == again.wire.frames
    assert once.wire.frames != other.wire.frames


def test_thoughts_come_on_2_5_and_on_request(paper_call: Any) -> None:
    def thoughts(model: str, **generation: Any) -> int:
        call = paper_call("greeting")
        call.setup(model, generationConfig=generation)
        call.text()
        call.finish()
        return sum(b'"thought": true' in frame for frame in call.wire.frames)

    thinking = "models/gemini-3.8-live-extended-thinking"
    assert thoughts(NATIVE) == 1
    assert thoughts("models/gemini-3.8-live") == 0
    assert thoughts(thinking, thinkingConfig={"thinkingLevel": "LOW"}) == 0
    assert thoughts(thinking, thinkingConfig={"thinkingLevel": "LOW", "includeThoughts": True}) == 1


def test_every_frame_is_json_of_moderate_size(paper_call: Any) -> None:
    call = greeted(paper_call, "models/gemini-3.8-live")
    assert all(json.loads(frame) is not None for frame in call.wire.frames)
    assert max(len(frame) for frame in call.wire.frames) < 25_000


def test_what_a_drop_cut_off_is_kept_without_a_copy(paper_call: Any) -> None:
    call = paper_call("greeting")
    call.setup()
    call.text()
    call.settle(2.0)
    call.talk.disconnected(call.now)
    cut = call.talk._memory.cut
    assert isinstance(cut.pcm, memoryview)
    assert cut.pcm.obj is GREETING.pcm
    assert 0 < len(cut.pcm) < len(GREETING.pcm)
    assert GREETING.pcm.endswith(cut.pcm)
