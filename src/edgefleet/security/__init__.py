"""Authentication: release signatures, device credentials and operator tokens.

Hub and agent read release manifests through ``signing.open_manifest`` only. A fuller update trust
(TUF roles, thresholds, expiry) would be added there.
"""
