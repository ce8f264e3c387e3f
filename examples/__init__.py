"""Programs that show what the project does; each runs as `python -m examples.NAME`."""
