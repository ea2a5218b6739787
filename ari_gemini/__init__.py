"""ari-gemini: phone calls on Asterisk answered by a realtime AI model."""

__version__ = "0.1.0"
