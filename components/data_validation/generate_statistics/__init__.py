"""Computes TFDV statistics of examples."""
