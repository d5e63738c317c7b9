"""Forecasters, training, scores, backtests and intervals."""
