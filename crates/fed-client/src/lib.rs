//! Outbound federation: discovery, TLS, request signing, key fetching.
