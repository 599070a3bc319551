"""Errors, typed settings, quantities, fingerprints, artifacts, ledger, statistics, gates."""
