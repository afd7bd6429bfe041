//! The one write path for rooms, and the read views that sync needs.
