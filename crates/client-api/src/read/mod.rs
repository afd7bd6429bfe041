//! Reading rooms: history, state, members, single events.

mod context;
mod event;
mod members;
mod messages;
mod peek;
mod relations;
mod state;
mod threads;
mod timestamp;

use exeunt_http::Routes;

use crate::ClientApi;

pub fn routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    let routes = messages::routes(routes);
    let routes = members::routes(routes);
    let routes = state::routes(routes);
    let routes = context::routes(routes);
    let routes = relations::routes(routes);
    let routes = threads::routes(routes);
    let routes = timestamp::routes(routes);
    let routes = peek::routes(routes);
    event::routes(routes)
}
