//! Every table, in one list: prefix byte, name, key, value. A prefix is never reused.

use exeunt_core::PendingMembership;
use ruma::{
    OwnedDeviceId, OwnedEventId, OwnedRoomAliasId, OwnedRoomId, OwnedServerName, OwnedUserId,
};
use serde_json::value::RawValue;

use crate::records::*;
use crate::snapshot::Node;

tables! {
    /// Single values of the store itself: schema version, stream position, counters.
    0x01 Meta: String => u64,

    /// Every event we hold, outliers and rejected ones too.
    0x10 Events: OwnedEventId => EventRecord,
    /// Forward edges: (room, event, one that names it in `prev_events`).
    0x11 Children: (OwnedRoomId, OwnedEventId, OwnedEventId) => (),
    /// The room as clients see it: shown events in order. Backfilled history has orders below 0, or
    /// in between.
    0x12 Timeline: (OwnedRoomId, i64) => OwnedEventId,
    /// Head of a room that we reside in, or once did.
    0x13 Rooms: OwnedRoomId => RoomRecord,
    /// Current state of a room from a stream position on.
    0x14 RoomStates: (OwnedRoomId, u64) => Root,
    /// Nodes of the persistent state trees.
    0x15 StateNodes: [u8; 16] => Node,
    /// How many users of a server are joined to a room.
    0x16 JoinedServers: (OwnedRoomId, OwnedServerName) => u64,
    /// State events that were not rejected, by an event that they name in `auth_events`.
    0x17 AuthChildren: (OwnedEventId, OwnedEventId) => (),
    /// Rooms whose rows are being deleted.
    0x18 Purges: OwnedRoomId => (),
    /// Redactions that came before their target: (room, target, redaction).
    0x19 Redactions: (OwnedRoomId, OwnedEventId, OwnedEventId) => RedactionRecord,
    /// Events that were soft-failed because the room's ACL denied their server, by stream position.
    0x1a Denied: (OwnedRoomId, u64) => (OwnedServerName, OwnedEventId),
    /// Forward extremities that are less deep than those in the room's head: (room, depth, event).
    0x1d OlderHeads: (OwnedRoomId, u64, OwnedEventId) => (),
    /// Events that count as unread, by their order in the timeline.
    0x1e Notable: (OwnedRoomId, i64) => NotableRecord,
    /// Servers that are in a room no longer, and the stream position at which their last user went.
    0x1b DepartedServers: (OwnedRoomId, OwnedServerName) => u64,
    /// Events of a room whose join is under way, numbered as they came. Nothing has been checked,
    /// and nothing else reads them.
    0x1f Arrivals: (OwnedRoomId, u64) => Box<RawValue>,

    /// Membership of local users, of rooms that we reside in and of rooms that we do not.
    0x20 Memberships: (OwnedUserId, OwnedRoomId) => MembershipRecord,
    /// The same by room: the local users that a room concerns.
    0x21 LocalMembers: (OwnedRoomId, OwnedUserId) => String,
    /// Invites and knocks to rooms that we do not reside in.
    0x22 Pending: (OwnedUserId, OwnedRoomId) => PendingMembership,
    /// Departures that no server has taken yet.
    0x23 Departures: (OwnedUserId, OwnedRoomId) => DepartureRecord,
    /// Every membership change of (room, user), by stream position: who signed, how it came.
    0x24 MembershipLog: (OwnedRoomId, OwnedUserId, u64) => MembershipLogRecord,
    /// The invites in `MembershipLog`, by (room, user) and event.
    0x2a Invites: (OwnedRoomId, OwnedUserId, OwnedEventId) => (),
    /// Accounts that leave all their rooms, and how far they are.
    0x27 DepartureJobs: OwnedUserId => DepartureJobRecord,
    /// Every event and object that we signed, by stream position.
    0x25 SigningJournal: u64 => SignatureRecord,
    /// Which servers took a membership event from us: (room, event, server).
    0x28 Deliveries: (OwnedRoomId, OwnedEventId, OwnedServerName) => DeliveryRecord,
    /// Withdrawals of invites that cannot be acted on: (server that sent them, user, room).
    0x26 Withdrawals: (OwnedServerName, OwnedUserId, OwnedRoomId) => WithdrawalRecord,
    /// Invites of local users that we signed as a server in the room, and that the room has not told
    /// us of yet.
    0x29 SignedInvites: (OwnedRoomId, OwnedUserId) => PendingMembership,

    /// What waits for a server, by stream position.
    0x30 Outbox: (OwnedServerName, u64) => OutboxItem,
    /// State of delivery to a server.
    0x31 Destinations: OwnedServerName => DestinationRecord,
    /// Answers to transactions that other servers sent: replays get the same.
    0x32 Transactions: (OwnedServerName, String) => TransactionRecord,
    /// Keys of other servers.
    0x33 ServerKeys: (OwnedServerName, String) => ServerKeyRecord,
    /// Events of transactions that wait to be worked on, in order: (room, position, index).
    0x35 InboundQueue: (OwnedRoomId, u64, u64) => InboundRecord,
    /// What a server would not have, by its position in the outbox: taken out of the queue.
    0x36 SetAside: (OwnedServerName, u64) => SetAsideRecord,
    /// Events of purged rooms that wait for a server: (room, event).
    0x37 Kept: (OwnedRoomId, OwnedEventId) => (),
    /// When a departure is tried again: the sender's own row, so that it never writes `Departures`.
    0x34 DepartureRetries: (OwnedUserId, OwnedRoomId) => DepartureRetryRecord,

    /// Room aliases of this server.
    0x40 Aliases: OwnedRoomAliasId => AliasRecord,
    /// The same by room.
    0x41 RoomAliases: (OwnedRoomId, OwnedRoomAliasId) => (),
    /// Events by the transaction id of the device that sent them.
    0x42 ClientTransactions: (OwnedUserId, OwnedDeviceId, String) => OwnedEventId,
    /// Sender's side of the same: the device and transaction id of an event.
    0x43 EventTransactions: OwnedEventId => (OwnedDeviceId, String),
    /// Rooms in the published directory of this server.
    0x44 PublicRooms: OwnedRoomId => PublicRoomRecord,

    /// What users reported to the administrators, by stream position.
    0x45 ContentReports: (OwnedUserId, u64) => ContentReportRecord,
    /// The room in which the server speaks to a user.
    0x46 NoticeRooms: OwnedUserId => OwnedRoomId,

    /// Local accounts.
    0x50 Accounts: OwnedUserId => AccountRecord,
    /// Devices of local users.
    0x51 Devices: (OwnedUserId, OwnedDeviceId) => DeviceRecord,
    /// Access tokens by their SHA-256.
    0x52 Tokens: [u8; 32] => TokenRecord,
    /// Refresh tokens by their SHA-256.
    0x57 RefreshTokens: [u8; 32] => RefreshTokenRecord,
    /// Registration tokens that administrators gave out.
    0x58 RegistrationTokens: String => RegistrationTokenRecord,
    /// Profiles of local users.
    0x53 Profiles: OwnedUserId => ProfileRecord,
    /// Stored filters: (user, filter id).
    0x54 Filters: (OwnedUserId, u64) => exeunt_core::Object,
    /// Account data: (user, room id or empty, type).
    0x55 AccountData: (OwnedUserId, String, String) => AccountDataRecord,
    /// What users have read: (room, user, type and thread).
    0x56 Receipts: (OwnedRoomId, OwnedUserId, String) => ReceiptRecord,

    /// Shown events by what they relate to: (room, parent, order of the child). Not redacted ones.
    0x60 Relations: (OwnedRoomId, OwnedEventId, i64) => RelationRecord,
    /// The thread that a shown event is in: (room, order), and the root.
    0x61 ThreadEvents: (OwnedRoomId, i64) => OwnedEventId,
    /// Shown events by their time: (room, `origin_server_ts`, order).
    0x62 EventTimes: (OwnedRoomId, u64, i64) => (),
    /// Words of shown events: (room, word, order); how often, and among how many.
    0x63 Words: (OwnedRoomId, String, i64) => (u64, u64),
}
