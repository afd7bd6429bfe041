//! Accounts, devices, tokens, profiles, filters.
