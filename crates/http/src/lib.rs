//! Shared actix-web glue: router, ruma extractors and responders, MatrixError, limits.
