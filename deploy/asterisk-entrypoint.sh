#!/bin/sh
# Writes what differs from container to container into /etc/asterisk/local (see asterisk/*.conf), then becomes Asterisk.
#
#   ARI_PASSWORD_FILE  file with the password of the ARI user `gemini`; required
#   AUDIOSOCKET        host:port of the service, which way B dials; ari-gemini:9092
#   EXTERNAL_ADDRESS   the address callers reach this host by: needed behind NAT, and a bridged container is
#   LOCAL_NET          with EXTERNAL_ADDRESS: networks, by commas, that reach the container without NAT; none
#   RTP_START, RTP_END the callers' sound, UDP; 10000 to 10199
#
# Phones, trunks and dialplan of your own: mount a directory at /etc/asterisk/site; NAME.conf there is read after what
# is written here.
set -eu
umask 077

etc=${ASTERISK_ETC:-/etc/asterisk}
local=$etc/local

password_file=${ARI_PASSWORD_FILE:?names the file with the ARI password}
audiosocket=${AUDIOSOCKET:-ari-gemini:9092}
external_address=${EXTERNAL_ADDRESS:-}
local_net=${LOCAL_NET:-}
rtp_start=${RTP_START:-10000}
rtp_end=${RTP_END:-10199}

password=$(cat "$password_file")
case $password in
  '') echo "asterisk-entrypoint: $password_file is empty" >&2; exit 1 ;;
  *[!A-Za-z0-9._~+/=-]*)
    # ; begins a comment in Asterisk's files, a line break begins a new setting
    echo "asterisk-entrypoint: the ARI password may hold only letters, digits and . _ ~ + / = -" >&2
    exit 1
    ;;
esac

mkdir -p "$(readlink -f "$local")"

for name in ari asterisk extensions http logger manager modules pjsip rtp websocket_client; do
  {
    case $name in
      ari) printf '[gemini](+)\npassword = %s\n' "$password" ;;
      extensions) printf '[globals](+)\nARI_GEMINI_AUDIOSOCKET = %s\n' "$audiosocket" ;;
      # every address of this container; which networks those are is for compose.yaml to say
      http) printf '[general](+)\nbindaddr = 0.0.0.0\n' ;;
      pjsip)
        if [ -n "$external_address" ]; then
          printf '[transport-udp](+)\nexternal_media_address = %s\nexternal_signaling_address = %s\n' \
            "$external_address" "$external_address"
          if [ -n "$local_net" ]; then
            # Its own addresses, too: Asterisk replaces its address in SDP only where that one counts as local.
            own=$(hostname -I)
            for network in $(echo "$local_net" | tr ',' ' ') $own; do
              printf 'local_net = %s\n' "$network"
            done
          fi
        fi
        ;;
      rtp) printf '[general](+)\nrtpstart = %s\nrtpend = %s\n' "$rtp_start" "$rtp_end" ;;
    esac
    printf '\n#tryinclude site/%s.conf\n' "$name"
  } >"$local/$name.conf"
done

exec "$@"
