//! Authorisation rules and state resolution as pure functions over events in memory.
