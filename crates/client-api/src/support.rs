//! Whom to turn to: `/.well-known/matrix/support`.

use exeunt_http::{MatrixError, Method, RawCall, Reply, Routes};
use ruma::OwnedUserId;
use serde_json::json;

use crate::ClientApi;

/// From the configuration. Empty: somebody else serves it, or nobody.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Support {
    pub contacts: Vec<SupportContact>,
    /// URL of a page with help.
    pub page: Option<String>,
}

/// A way to reach those who have a role; one of the two at least is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SupportContact {
    /// `m.role.admin`, `m.role.security`.
    pub role: &'static str,
    pub email: Option<String>,
    pub user: Option<OwnedUserId>,
}

pub(crate) fn routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    routes.public_raw(Method::GET, "/.well-known/matrix/support", support)
}

/// `GET /.well-known/matrix/support`
async fn support(api: ClientApi, _: RawCall) -> Result<Reply, MatrixError> {
    let Support { contacts, page } = &api.options().support;
    let mut answer = json!({});
    for SupportContact { role, email, user } in contacts {
        let mut contact = json!({ "role": role });
        if let Some(email) = email {
            contact["email_address"] = json!(email);
        }
        if let Some(user) = user {
            contact["matrix_id"] = json!(user);
        }
        match answer["contacts"].as_array_mut() {
            Some(contacts) => contacts.push(contact),
            None => answer["contacts"] = json!([contact]),
        }
    }
    if let Some(page) = page {
        answer["support_page"] = json!(page);
    }
    if answer == json!({}) {
        return Err(MatrixError::not_found("No support information is served here"));
    }
    Ok(Reply::json(answer))
}
