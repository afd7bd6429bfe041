//! Application services: programs that act for the users of a namespace. Specification: application
//! service API, "Registration" and "Identity assertion".

use std::sync::Arc;

use exeunt_core::ruma::{OwnedDeviceId, OwnedUserId, RoomAliasId, ServerName, UserId};
use exeunt_store::tables::Accounts;
use regex::{Regex, RegexBuilder};
use serde::Deserialize;
use subtle::ConstantTimeEq;
use thiserror::Error;

use crate::token::{MAX_TOKEN, TokenHash, token_hash};
use crate::{NewAccount, Session, Users, UsersError, name};

/// Most memory of one compiled expression.
const MAX_REGEX: usize = 1 << 20;

/// What a registration file says.
#[derive(Clone, Deserialize)]
pub struct Registration {
    pub id: String,
    /// Where the service is; `None`: it wants to be sent nothing.
    pub url: Option<String>,
    pub as_token: String,
    pub hs_token: String,
    pub sender_localpart: String,
    pub namespaces: Namespaces,
    /// Whether the users that the service acts for are limited; its own user never is.
    #[serde(default = "yes")]
    pub rate_limited: bool,
}

fn yes() -> bool {
    true
}

/// What a service is about. Rooms are named for what is sent to it, which nothing is.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Namespaces {
    #[serde(default)]
    pub users: Vec<Namespace>,
    #[serde(default)]
    pub aliases: Vec<Namespace>,
    #[serde(default)]
    pub rooms: Vec<Namespace>,
}

/// Ids that begin as an expression says.
#[derive(Debug, Clone, Deserialize)]
pub struct Namespace {
    /// Whether nobody else may have such an id.
    pub exclusive: bool,
    pub regex: String,
}

/// What is wrong with a registration.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("application service {id:?}: {text}")]
pub struct RegistrationError {
    pub id: String,
    pub text: String,
}

/// All application services of a server. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct AppServices(Arc<[AppService]>);

/// One that may use the server.
#[derive(Debug)]
pub struct AppService {
    id: Arc<str>,
    token: TokenHash,
    sender: OwnedUserId,
    rate_limited: bool,
    users: Vec<Space>,
    aliases: Vec<Space>,
}

#[derive(Debug)]
struct Space {
    exclusive: bool,
    regex: Regex,
}

/// The application service behind a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByService {
    pub id: Arc<str>,
    pub rate_limited: bool,
}

impl AppServices {
    /// Checks the registrations: ids and tokens are there and differ, names and expressions read.
    pub fn new(
        server: &ServerName,
        registrations: Vec<Registration>,
    ) -> Result<Self, RegistrationError> {
        let mut services: Vec<AppService> = Vec::new();
        for registration in registrations {
            let id = registration.id.clone();
            let error = |text: String| RegistrationError { id: id.clone(), text };
            let service = AppService::new(server, registration).map_err(error)?;
            for other in &services {
                if other.id == service.id {
                    return Err(error("another one has the same id".into()));
                }
                if other.token == service.token {
                    return Err(error(format!("{:?} has the same as_token", other.id)));
                }
                if other.sender == service.sender {
                    return Err(error(format!("{:?} has the same sender_localpart", other.id)));
                }
            }
            services.push(service);
        }
        Ok(Self(services.into()))
    }

    /// The service whose `as_token` that is.
    pub fn by_token(&self, token: &str) -> Option<&AppService> {
        if self.0.is_empty() || token.len() > MAX_TOKEN {
            return None;
        }
        let hash = token_hash(token);
        self.0.iter().find(|service| service.token.ct_eq(&hash).into())
    }

    /// Whether a user id is kept for a service other than that one.
    pub fn keep_user(&self, user: &UserId, from: Option<&AppService>) -> bool {
        self.others(from.map(|service| &*service.id)).any(|service| {
            service.sender == user || is_in(&service.users, user.as_str(), |space| space.exclusive)
        })
    }

    /// Whether an alias is kept for a service other than that of the session.
    pub fn keep_alias(&self, alias: &RoomAliasId, from: Option<&ByService>) -> bool {
        let mut others = self.others(from.map(|service| &*service.id));
        others.any(|service| is_in(&service.aliases, alias.as_str(), |space| space.exclusive))
    }

    fn others(&self, but: Option<&str>) -> impl Iterator<Item = &AppService> {
        self.0.iter().filter(move |service| Some(&*service.id) != but)
    }
}

impl AppService {
    fn new(server: &ServerName, registration: Registration) -> Result<Self, String> {
        let Registration { id, as_token, hs_token, sender_localpart, namespaces, .. } =
            registration;
        for (key, value) in [("id", &id), ("as_token", &as_token), ("hs_token", &hs_token)] {
            if value.is_empty() {
                return Err(format!("{key} is empty"));
            }
        }
        if as_token.len() > MAX_TOKEN {
            return Err(format!("as_token is longer than {MAX_TOKEN} bytes"));
        }
        let sender = name::new_user_id(&sender_localpart, server);
        Ok(Self {
            id: id.into(),
            token: token_hash(&as_token),
            sender: sender.map_err(|error| format!("sender_localpart: {error}"))?,
            rate_limited: registration.rate_limited,
            users: spaces("users", namespaces.users)?,
            aliases: spaces("aliases", namespaces.aliases)?,
        })
    }

    /// Whether the service may act for a user of this server.
    pub fn has_user(&self, user: &UserId) -> bool {
        let is_local = user.server_name() == self.sender.server_name();
        is_local && (self.sender == user || is_in(&self.users, user.as_str(), |_| true))
    }
}

fn spaces(kind: &str, namespaces: Vec<Namespace>) -> Result<Vec<Space>, String> {
    let compile = |Namespace { exclusive, regex }| {
        // Anchored at the beginning alone, as other servers have it and files rely on.
        let compiled = RegexBuilder::new(&format!("^(?:{regex})")).size_limit(MAX_REGEX).build();
        match compiled {
            Ok(regex) => Ok(Space { exclusive, regex }),
            Err(error) => Err(format!("namespaces.{kind}: {regex:?}: {error}")),
        }
    };
    namespaces.into_iter().map(compile).collect()
}

fn is_in(spaces: &[Space], id: &str, counts: impl Fn(&Space) -> bool) -> bool {
    spaces.iter().any(|space| counts(space) && space.regex.is_match(id))
}

impl Users {
    /// Makes the accounts of the services' own users that are not there.
    pub async fn register_senders(&self, services: &AppServices) -> Result<(), UsersError> {
        for service in services.0.iter() {
            let localpart = Some(service.sender.localpart());
            match self.register(NewAccount { localpart, ..NewAccount::default() }).await {
                Ok(_) | Err(UsersError::UserInUse(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// A session of a service: as its own user, or as one of its namespace whom it names.
    pub async fn service_session(
        &self,
        service: &AppService,
        named: Option<&str>,
    ) -> Result<Session, UsersError> {
        let user_id = match named {
            None => service.sender.clone(),
            Some(named) => UserId::parse(named)
                .ok()
                .filter(|user| service.has_user(user))
                .ok_or(UsersError::OutsideNamespace)?,
        };
        let key = user_id.clone();
        let account = self.inner.store.read(move |r| r.get::<Accounts>(&key)).await?;
        let account = account.ok_or(UsersError::NotRegistered)?;
        if account.deactivated {
            return Err(UsersError::Deactivated);
        }
        let by_service = ByService {
            id: service.id.clone(),
            rate_limited: service.rate_limited && user_id != service.sender,
        };
        // It has no device: this only keeps its transaction ids apart from those of others.
        let device_id = OwnedDeviceId::from(format!("application service {}", service.id));
        let (locked, suspended) = (account.locked, account.suspended);
        Ok(Session { user_id, device_id, locked, suspended, by_service: Some(by_service) })
    }
}

#[cfg(test)]
mod tests {
    use exeunt_core::ruma::{room_alias_id, server_name, user_id};
    use serde_json::{Value, json};

    use super::*;

    fn file(id: &str, changes: Value) -> Registration {
        let mut file = json!({
            "id": id,
            "url": null,
            "as_token": format!("token of {id}"),
            "hs_token": "ours",
            "sender_localpart": format!("{id}-bot"),
            "namespaces": {
                "users": [
                    { "exclusive": true, "regex": format!("@_{id}_.*:example\\.org") },
                    { "exclusive": false, "regex": "@guest" },
                ],
                "aliases": [{ "exclusive": true, "regex": format!("#_{id}_") }],
            },
        });
        file.as_object_mut().unwrap().extend(changes.as_object().cloned().unwrap());
        serde_json::from_value(file).unwrap()
    }

    fn services(files: Vec<Registration>) -> Result<AppServices, RegistrationError> {
        AppServices::new(server_name!("example.org"), files)
    }

    #[test]
    fn namespaces_tell_whom_a_service_acts_for_and_who_else_may_not() {
        let services = services(vec![file("irc", json!({})), file("xmpp", json!({}))]).unwrap();
        let irc = services.by_token("token of irc").unwrap();
        for (user, ours, kept) in [
            (user_id!("@irc-bot:example.org"), true, true),
            (user_id!("@_irc_ann:example.org"), true, true),
            (user_id!("@guest7:example.org"), true, false),
            (user_id!("@a-guest:example.org"), false, false),
            (user_id!("@_xmpp_ann:example.org"), false, true),
            (user_id!("@guest7:elsewhere.org"), false, false),
        ] {
            assert_eq!(
                (irc.has_user(user), services.keep_user(user, None)),
                (ours, kept),
                "{user}"
            );
            let from_irc = services.keep_user(user, Some(irc));
            assert_eq!(from_irc, user == "@_xmpp_ann:example.org", "{user}");
        }
        let alias = room_alias_id!("#_irc_rust:example.org");
        let by = |id: &str| Some(ByService { id: id.into(), rate_limited: false });
        assert!(
            services.keep_alias(alias, None) && services.keep_alias(alias, by("xmpp").as_ref())
        );
        assert!(!services.keep_alias(alias, by("irc").as_ref()));
        assert!(!services.keep_alias(room_alias_id!("#rust:example.org"), None));
        assert!(services.by_token("token of").is_none() && services.by_token("").is_none());
    }

    #[test]
    fn registrations_that_do_not_fit() {
        let regex = |regex: &str| json!({ "namespaces": { "users": [{ "exclusive": true, "regex": regex }] } });
        for (changes, text) in [
            (json!({ "id": "irc" }), "another one has the same id"),
            (json!({ "as_token": "token of irc" }), "\"irc\" has the same as_token"),
            (json!({ "sender_localpart": "irc-bot" }), "\"irc\" has the same sender_localpart"),
            (json!({ "as_token": "" }), "as_token is empty"),
            (json!({ "as_token": "x".repeat(300) }), "as_token is longer than 256 bytes"),
            (json!({ "hs_token": "" }), "hs_token is empty"),
            (json!({ "id": "" }), "id is empty"),
            (json!({ "sender_localpart": "a b" }), "sender_localpart: "),
            (regex("@(.*"), "namespaces.users: \"@(.*\": "),
            (regex("@(?=x)"), "namespaces.users: \"@(?=x)\": "),
            (regex("@x{1000}{1000}"), "namespaces.users: "),
        ] {
            let error = services(vec![file("irc", json!({})), file("x", changes)]).unwrap_err();
            assert!(error.text.starts_with(text), "{error}");
        }
    }
}
