//! Compiles a server ACL into a value and answers allow or deny.
