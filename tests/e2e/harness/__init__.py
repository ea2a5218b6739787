"""What the end-to-end tests stand on: a real Asterisk, real SIP phones, and instruments to measure them.

``jail``      starts a program of the fetched tree with mounts and, if asked, a network of its own
``asterisk``  the Asterisk that runs the repository's ``asterisk/`` folder; ARI and CLI for the tests
``command``   the service as a process of its own, its output kept
``phone``     a SIP phone (baresip) with a microphone that can be switched at any moment
``tap``       what really went over the wire between a phone and Asterisk, packet by packet, with kernel times
``align``     how well a recording matches what was said, after sub-sample alignment
``arrival``   what of a caller's sound came to the model, sample by sample, over several connections
``measure``   what a caller had to bear: silence, soft tone, late packets
``scene``     a whole service with the network around it in the test's hands; callers who are never silent
``faults``    what can go wrong in a call, and what becomes of it
``takeover``  a worker is killed, another goes on with its calls
``sound``     WAV files, G.711, and speech-like test signals

Everything that is started ends with its test: processes die with the test process (PR_SET_PDEATHSIG),
mounts live in mount namespaces and network interfaces in network namespaces, so even ``kill -9`` leaves
nothing behind.
"""
