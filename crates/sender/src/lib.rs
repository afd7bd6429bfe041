//! The durable queue per destination and the departure outbox.
