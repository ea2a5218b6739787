#!/bin/sh
# Rebuilds every recording of index.toml with espeak-ng and sox (Debian: apt-get install espeak-ng sox).
# usage: ./make_speech.sh            run from anywhere; writes the .wav files beside index.toml
set -eu
cd "$(dirname "$0")"

model_voice="en-us+f3"
caller_voice="en-gb-x-rp+m3"

# The silence of the synthesiser is cut off at both ends, so that the first sample spoken is the first sample
# sent. 10 ms of fade keep the cuts free of clicks; no dither keeps the result reproducible.
render() { # name rate_hz voice words_per_minute pitch text
    espeak-ng -v "$3" -s "$4" -p "$5" --stdout "$6" |
        sox -D - -r "$2" -c 1 -b 16 "$1.wav" \
            gain -3 highpass 80 \
            silence 1 0.005 0.3% fade t 0.01 reverse \
            silence 1 0.005 0.3% fade t 0.01 reverse \
            norm -5
    echo "$1.wav"
}

# index.toml is the one list of what is said: name, file, text and speaker of each phrase.
awk -F' = ' '
    function value(s) { sub(/^"/, "", s); sub(/"$/, "", s); return s }
    $1 == "name"    { name = value($2) }
    $1 == "speaker" { speaker = value($2) }
    $1 == "text"    { sub(/^text = /, ""); print name "\t" speaker "\t" value($0) }
' index.toml | while IFS="$(printf '\t')" read -r name speaker text; do
    case "$speaker" in
        model) render "$name" 24000 "$model_voice" 172 52 "$text" ;;
        caller) render "$name" 8000 "$caller_voice" 160 45 "$text" ;;
        *) echo "unknown speaker: $speaker" >&2; exit 1 ;;
    esac
done
