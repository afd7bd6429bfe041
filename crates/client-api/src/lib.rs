//! Client endpoints and sync.
