"""The components: `components/<category>/<name>/component.py` is the interface, the implementation stands beside it."""
