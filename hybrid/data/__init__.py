"""Reading and writing rows: the examples artifact and streaming readers for what users have."""
