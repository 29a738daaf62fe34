"""Scores of models on rows: what steps that judge, convert or use a model share."""
