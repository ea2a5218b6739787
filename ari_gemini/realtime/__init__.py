"""The common language of realtime speech models: events and the session every provider offers."""
