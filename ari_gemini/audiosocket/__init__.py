"""The media door: AudioSocket, the TCP protocol over which Asterisk hands a call's sound to a service."""
