"""JSON Web Tokens of the configured issuers (RFC 7519, RFC 9068, OpenID Connect)."""
