"""Play: tasks on streams, run by an engine into a timeline. Knows neither chips nor models."""
