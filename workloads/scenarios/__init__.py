"""Scenarios: what a whole job asks of its ranks. Model x plan x batch -> per-rank programs."""
