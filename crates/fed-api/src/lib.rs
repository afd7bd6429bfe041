//! Inbound federation endpoints.
