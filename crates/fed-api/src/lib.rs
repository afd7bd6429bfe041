//! Inbound federation endpoints.
//!
//! Thin: each reads a request, makes one call of a service, and writes the answer. Every route
//! about one room is declared through [`FedRoutes::room`](route::FedRoutes::room), the ACL gate.

mod auth;
mod directory;
mod error;
mod event;
mod hierarchy;
mod history;
mod invite;
mod join;
mod keys;
mod knock;
mod leave;
mod openid;
mod query;
mod route;
mod send;
mod state;
mod third_party;
mod version;
mod well_known;

use std::sync::Arc;

use exeunt_core::ruma::ServerName;
use exeunt_http::Routes;
use exeunt_room::{Clock, Rooms};
use exeunt_users::Users;

pub use error::matrix_error;
use route::FedRoutes;

/// Told of every server that makes a request with a valid signature: it is alive.
pub type Alive = Arc<dyn Fn(&ServerName) + Send + Sync>;

/// What the endpoints say of this server.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The version that `GET version` names.
    pub server_version: String,
    /// Host and port for `/.well-known/matrix/server`, if it is served.
    pub well_known_server: Option<String>,
    /// Whether other servers may list the rooms that this one publishes.
    pub public_rooms: bool,
}

/// The state of the federation endpoints. Cheap to clone.
#[derive(Clone)]
pub struct FedApi {
    rooms: Rooms,
    users: Users,
    alive: Alive,
    clock: Clock,
    options: Arc<Options>,
}

impl FedApi {
    pub fn new(rooms: Rooms, users: Users, alive: Alive, clock: Clock, options: Options) -> Self {
        Self { rooms, users, alive, clock, options: Arc::new(options) }
    }

    fn now(&self) -> u64 {
        (self.clock)()
    }
}

/// Every federation endpoint.
pub fn routes(state: FedApi) -> Routes<FedApi> {
    let families = [
        keys::routes,
        version::routes,
        well_known::routes,
        send::routes,
        join::routes,
        knock::routes,
        leave::routes,
        invite::routes,
        third_party::routes,
        event::routes,
        state::routes,
        history::routes,
        query::routes,
        openid::routes,
        directory::routes,
        hierarchy::routes,
    ];
    families.into_iter().fold(FedRoutes::new(state), |routes, family| family(routes)).finish()
}
