//! What is of the moment: typing, receipts and read markers, presence.

mod presence;
mod receipts;
mod typing;

use exeunt_http::Routes;

use crate::ClientApi;

pub(crate) fn routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    let routes = typing::routes(routes);
    let routes = receipts::routes(routes);
    presence::routes(routes)
}
