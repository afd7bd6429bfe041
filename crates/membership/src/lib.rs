//! Planners, handshake state machines and inbound checks for join, knock, invite, leave and reject.
//!
//! Pure: nothing here does I/O, reads a clock or draws randomness. A handshake is one type per
//! awaited message; a step consumes it and says what to send next. Of what a peer sends, only a
//! checked [`GraphPosition`] enters an event that we sign (CVE-2026-24471).

pub mod candidates;
pub mod drafts;
pub mod inbound;
pub mod join;
pub mod knock;
pub mod leave;
pub mod plan;
pub mod remote;
pub mod rescission;
pub mod template;

pub use candidates::{MAX_CANDIDATES, candidates};
pub use drafts::{MAX_REASON_BYTES, OwnMember, join_draft, knock_draft, leave_draft};
pub use exeunt_core::PendingMembership;
pub use inbound::{
    InboundError, check_invite, check_send_join, check_send_knock, check_send_leave,
};
pub use join::{AfterMakeJoin, AfterSendJoin, Join, MakeJoin, SendJoin};
pub use knock::{AfterMakeKnock, AfterSendKnock, Knock, MakeKnock, SendKnock};
pub use leave::{AfterMakeLeave, AfterSendLeave, Departure, MakeLeave, SendLeave};
pub use plan::{LeavePlan, LeaveView, Membership, plan_leave};
pub use remote::{
    Attempt, Class, MAX_OUTCOME_BYTES, MakeRequest, RemoteFailure, SendApi, SendRequest,
    nothing_to_leave,
};
pub use rescission::{
    Probed, Rescission, check_rescission, judge_probe, probe_request, probe_servers,
};
pub use template::{
    Expected, GraphPosition, JoinPosition, TemplateError, check_join_template, check_template,
};
