"""Who may say what: release signatures, device credentials, operator tokens.

The seam for the full update trust (TUF roles, thresholds, expiry) is ``signing.open_manifest``: the
hub and the agent learn what a release is from nowhere else.
"""
