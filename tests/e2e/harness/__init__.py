"""What the end-to-end tests stand on: a real Asterisk, real SIP phones, and instruments to measure them.

``jail``      starts a program of the fetched tree with mounts and, if asked, a network of its own
``asterisk``  the Asterisk that runs the repository's ``asterisk/`` folder; ARI and CLI for the tests
``phone``     a SIP phone (baresip) with a microphone that can be switched at any moment
``tap``       what really went over the wire between a phone and Asterisk, packet by packet, with kernel times
``align``     how well a recording matches what was said, after sub-sample alignment
``sound``     WAV files, G.711, and speech-like test signals

Everything that is started ends with its test: processes die with the test process (PR_SET_PDEATHSIG),
mounts live in mount namespaces and network interfaces in network namespaces, so even ``kill -9`` leaves
nothing behind.
"""
