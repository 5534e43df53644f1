"""The labs: one flat script each, run as `python -m labs.NAME`."""
