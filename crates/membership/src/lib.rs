//! Planners and handshake state machines for join, invite, leave and reject.
