//! Client endpoints and sync. Handlers are thin: a typed request, one service call, a typed
//! response. What is not built is answered by the router: 404 `M_UNRECOGNIZED` (`planned.rs`).

mod account_data;
mod accounts;
mod admin;
mod body;
mod create;
mod directory;
mod discovery;
mod ephemeral;
mod error;
mod filter;
mod gate;
mod knock;
mod limits;
mod membership;
mod notices;
mod openid;
mod planned;
mod profile;
mod public_rooms;
mod push_rules;
mod read;
mod report;
mod search;
mod send;
mod send_member;
mod spaces;
mod state;
mod support;
mod sync;
mod tags;
mod third_party_networks;
mod upgrade;
mod user_directory;
mod voip;
mod words;

use exeunt_http::Routes;

pub use error::{room_error, users_error};
pub use exeunt_users::Session;
pub use limits::{Class, Rate, Rates};
pub use notices::NoticeOptions;
pub use state::{ClientApi, Options};
pub use support::{Support, SupportContact};
pub use voip::Turn;

/// What administrators may do, for a listener that none but the operator can reach: nobody is asked
/// who they are.
pub fn operator_routes(state: ClientApi) -> Routes<ClientApi> {
    admin::routes(Routes::new(state).body_limit(MAX_BODY), admin::Gate::Operator)
}

/// All client endpoints.
pub fn routes(state: ClientApi) -> Routes<ClientApi> {
    let routes = Routes::new(state).body_limit(MAX_BODY);
    let routes = discovery::routes(routes);
    let routes = accounts::routes(routes);
    let routes = profile::routes(routes);
    let routes = user_directory::routes(routes);
    let routes = openid::routes(routes);
    let routes = filter::routes(routes);
    let routes = account_data::routes(routes);
    let routes = tags::routes(routes);
    let routes = push_rules::routes(routes);
    let routes = create::routes(routes);
    let routes = upgrade::routes(routes);
    let routes = membership::routes(routes);
    let routes = knock::routes(routes);
    let routes = send::routes(routes);
    let routes = directory::routes(routes);
    let routes = public_rooms::routes(routes);
    let routes = spaces::routes(routes);
    let routes = report::routes(routes);
    let routes = support::routes(routes);
    let routes = voip::routes(routes);
    let routes = third_party_networks::routes(routes);
    let routes = read::routes(routes);
    let routes = search::routes(routes);
    let routes = ephemeral::routes(routes);
    let routes = sync::routes(routes);
    let routes = admin::routes(routes, admin::Gate::Administrators);
    // The API of r0.6.1, which some clients still speak, is that of v3 at other paths.
    planned::routes(routes).also_below("/_matrix/client/v3", "/_matrix/client/r0")
}

/// Largest body of a client's request: an event has at most 64 KiB, createRoom holds several.
pub const MAX_BODY: usize = 1024 * 1024;
