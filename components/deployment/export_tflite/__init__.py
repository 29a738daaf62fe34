"""Exports a SavedModel to TFLite and checks that it still answers the same."""
