//! The options. Their texts here are what the example file and the documentation say.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use exeunt_core::{
    RoomVersion,
    ruma::{OwnedServerName, OwnedUserId},
};

use super::{
    option::section,
    values::{
        Authority, BaseUrl, Filter, LogFormat, Paths, RateLimit, Secret, ServerNames, Serves, Text,
        Uris,
    },
};

section! {
    /// This server's identity.
    Server("server") {
        /// The part of user ids after the colon. It cannot be changed once there are users.
        name: OwnedServerName = Required("\"example.org\""),
    }
}

section! {
    /// Where the data lives.
    Store("store") {
        /// A folder for the database and the signing key. It is made if need be. Relative paths
        /// here and below start at the working directory.
        path: PathBuf = Default("\"/var/lib/exeunt\""),
    }
}

section! {
    /// An address to listen on. Repeat the table for more. With a certificate it speaks TLS
    /// (HTTP/2 and 1.1), without one it is for a reverse proxy.
    Listener("listeners") {
        /// Address and port.
        bind: SocketAddr = Default("\"127.0.0.1:8008\""),
        /// Certificate chain in PEM, this server's certificate first.
        certificate: Option<PathBuf> = Optional("\"/etc/exeunt/fullchain.pem\""),
        /// The certificate's private key in PEM.
        key: Option<PathBuf> = Optional("\"/etc/exeunt/privkey.pem\""),
        /// What to serve here: "client", "federation", "metrics" (GET /metrics for Prometheus, to
        /// anyone who can connect).
        serves: Serves = Default("[\"client\", \"federation\"]"),
    }
}

section! {
    /// Talking to other servers.
    Federation("federation") {
        /// Whether to talk to other servers at all.
        enabled: bool = Default("true"),
        /// More certificate authorities to trust (PEM), beside those of the system.
        extra_ca: Option<PathBuf> = Optional("\"/etc/exeunt/ca.pem\""),
        /// The pause after a server could not be reached, and the longest that it grows to.
        retry_min: Duration = Default("\"5s\""),
        /// See retry_min.
        retry_max: Duration = Default("\"1h\""),
        /// The same for a departure (a rejected invite, a retracted knock) that no server has
        /// taken yet. It is tried again for days, and at once when a server shows up.
        departure_retry_min: Duration = Default("\"2s\""),
        /// See departure_retry_min.
        departure_retry_max: Duration = Default("\"10m\""),
        /// How long a user who leaves waits for other servers. Then the answer is yes, and the
        /// departure is delivered in the background.
        leave_deadline: Duration = Default("\"2s\""),
        /// Servers whose word on the keys of others is taken, where those cannot be asked. Whom you
        /// name here can forge any server's events to you.
        trusted_key_servers: ServerNames = Default("[]"),
        /// Whether other servers may list the rooms that this one publishes in its directory.
        public_rooms: bool = Default("false"),
    }
}

section! {
    /// Who may create accounts.
    Registration("registration") {
        /// Whether everybody may.
        open: bool = Default("false"),
        /// Whoever knows this token may (m.login.registration_token), and with it nobody else.
        token: Option<Secret> = Optional("\"a long random text\""),
        /// Lets administration tools create accounts (/_synapse/admin/v1/register).
        shared_secret: Option<Secret> = Optional("\"another long random text\""),
    }
}

section! {
    /// Application services: programs such as bridges that act for users of their own.
    AppServices("app_services") {
        /// Their registration files (YAML). Nothing is sent to them yet: they have to ask.
        files: Paths = Default("[]"),
    }
}

section! {
    /// How often clients may ask for something: "20/1m" is 20 times at once, and 20 times more in
    /// every minute; "off" is as often as they like. Leaving and rejecting are never limited.
    RateLimits("rate_limits") {
        /// Whether there are limits at all.
        enabled: bool = Default("true"),
        /// Logging in and other guesses at a secret, by address and by account.
        login: RateLimit = Default("\"20/1m\""),
        /// Registering, by address.
        registration: RateLimit = Default("\"20/10m\""),
        /// Messages, state and redactions, by user, as all that follow.
        sending: RateLimit = Default("\"100/20s\""),
        /// Joining, knocking, and creating rooms.
        joins: RateLimit = Default("\"30/1m\""),
        /// Invites.
        invites: RateLimit = Default("\"60/1m\""),
        /// Everything else.
        others: RateLimit = Default("\"500/10s\""),
    }
}

section! {
    /// What is created here, and what is remembered.
    Rooms("rooms") {
        /// The version of rooms whose creator does not ask for another one.
        default_version: RoomVersion = Default("\"12\""),
        /// For how long a rejected invite is remembered where no user of this server was ever in the
        /// room, and a departure from a room that was deleted. A device that was away for longer is
        /// not told of it.
        keep_departures: Duration = Default("\"30d\""),
        /// For how long it is known what this server signed, for what and with whom.
        keep_signatures: Duration = Default("\"90d\""),
    }
}

section! {
    /// Who is there.
    Presence("presence") {
        /// Whether users are told which of those with whom they share a room are online.
        enabled: bool = Default("true"),
    }
}

section! {
    /// What administrators have the server say to users.
    Notices("notices") {
        /// The part before the colon of the user id by which it speaks. No person may have it.
        localpart: Text = Default("\"_server\""),
        /// Its display name, and the name of the rooms in which it speaks.
        name: Text = Default("\"Server notices\""),
    }
}

section! {
    /// Whom people may turn to (/.well-known/matrix/support).
    Support("support") {
        /// A page with help.
        page: Option<BaseUrl> = Optional("\"https://example.org/support\""),
        /// The administrators' address and account, which may be on another server.
        admin_email: Option<Text> = Optional("\"admin@example.org\""),
        /// See admin_email.
        admin_user: Option<OwnedUserId> = Optional("\"@admin:example.org\""),
        /// The same of those who take reports of security problems.
        security_email: Option<Text> = Optional("\"security@example.org\""),
        /// See security_email.
        security_user: Option<OwnedUserId> = Optional("\"@security:example.org\""),
    }
}

section! {
    /// A TURN server, over which calls find their way.
    Turn("turn") {
        /// Its URIs. Without any, clients do without.
        uris: Uris = Default("[]"),
        /// The secret that it shares with this server (static-auth-secret of coturn).
        shared_secret: Option<Secret> = Optional("\"a long random text\""),
        /// How long the credentials of a client are good for.
        credentials_life: Duration = Default("\"1d\""),
    }
}

section! {
    /// What the log on standard error looks like.
    Log("log") {
        /// "text" or "json".
        format: LogFormat = Default("\"text\""),
        /// A level (error, warn, info, debug, trace), also per module: "info,exeunt_room=debug".
        filter: Filter = Default("\"info,actix_server=warn\""),
    }
}

section! {
    /// The documents under /.well-known/matrix, for a server that is reached elsewhere than its
    /// name says.
    WellKnown("well_known") {
        /// Where clients find this server.
        client: Option<BaseUrl> = Optional("\"https://matrix.example.org\""),
        /// Where other servers find it: a name, and a port unless it is 8448.
        server: Option<Authority> = Optional("\"matrix.example.org:443\""),
    }
}
