"""``python -m ari_gemini`` is ``ari-gemini``."""

import sys

from ari_gemini.cli import main

sys.exit(main())
