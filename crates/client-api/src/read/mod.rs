//! Reading rooms: state, members, messages.

use exeunt_http::Routes;

use crate::ClientApi;

pub fn routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    routes
}
