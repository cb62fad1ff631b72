"""Logins to the page with an OpenID Connect provider: code flow with PKCE. See docs/oidc.md."""
