//! Several servers in one process over a fake network, for tests.
