"""The door to the Gemini Live API: what its bytes mean, and the WebSocket that moves them."""
