//! What users report, what the server says to users, and whom they can turn to.

use exeunt_client_api::{Options, Support, SupportContact};
use exeunt_room::{MAX_REASON_BYTES, MAX_REPORTS_PER_USER};
use serde_json::{Value, json};

use crate::common::{Client, Server, escape};

const REPORTS: &str = "/_exeunt/admin/v1/reports";
const NOTICE: &str = "/_synapse/admin/v1/send_server_notice";

async fn say(client: &Client<'_>, room: &str) -> String {
    let path = format!("/rooms/{}/send/m.room.message/1", escape(room));
    let sent = client.put(&path, json!({ "msgtype": "m.text", "body": "spam" })).await.ok();
    sent["event_id"].as_str().unwrap().to_owned()
}

#[actix_web::test]
async fn administrators_read_what_users_report() {
    let server = Server::new();
    let (ann, bob, root) =
        (server.user("ann").await, server.user("bob").await, server.admin("root").await);
    let room = ann.public_room().await;
    bob.join(&room).await;
    let event = say(&bob, &room).await;
    let of_event = format!("/rooms/{}/report/{}", escape(&room), escape(&event));
    ann.post(&of_event, json!({ "reason": "spam", "score": -100 })).await.ok();
    bob.post(&format!("/rooms/{}/report", "!unknown:x"), json!({ "reason": "" })).await.ok();
    bob.post("/users/@eve:else.org/report", json!({ "reason": "rude" })).await.ok();

    ann.get(REPORTS).await.fails(403, "M_FORBIDDEN");
    let first = root.get(&format!("{REPORTS}?limit=2")).await.ok();
    let (rows, next) = (first["rows"].as_array().unwrap(), &first["next"]);
    let told: Vec<_> = rows.iter().map(|row| (&row["reporter"], &row["reported"])).collect();
    assert_eq!(told, [(&json!(ann.user), &json!("event")), (&json!(bob.user), &json!("room"))]);
    assert_eq!((&rows[0]["sender"], &rows[0]["reason"]), (&json!(bob.user), &json!("spam")));
    assert_eq!((&rows[0]["room_id"], &rows[0]["event_id"]), (&json!(room), &json!(event)));
    let rest = root.get(&format!("{REPORTS}?from={next}")).await.ok();
    assert_eq!(rest["rows"][0]["user_id"], "@eve:else.org");
    assert_eq!((rest["rows"].as_array().unwrap().len(), rest.get("next")), (1, None));

    let row = format!("{REPORTS}/{}/{}", escape(&ann.user), rows[0]["id"]);
    ann.delete(&row).await.fails(403, "M_FORBIDDEN");
    root.delete(&row).await.ok();
    root.delete(&row).await.fails(404, "M_NOT_FOUND");
    assert_eq!(root.get(REPORTS).await.ok()["rows"].as_array().unwrap().len(), 2);
}

/// An event is reported by who sees it; nobody fills the store with reports.
#[actix_web::test]
async fn reports_that_are_refused() {
    let server = Server::new();
    let (ann, bob) = (server.user("ann").await, server.user("bob").await);
    let (room, other) = (ann.public_room().await, ann.public_room().await);
    let (event, elsewhere) = (say(&ann, &room).await, say(&ann, &other).await);
    let of = |room: &str, event: &str| format!("/rooms/{}/report/{}", escape(room), escape(event));
    let body = || json!({ "reason": "spam" });
    bob.post(&of(&room, &event), body()).await.fails(404, "M_NOT_FOUND");
    bob.join(&room).await;
    bob.post(&of(&room, "$none"), body()).await.fails(404, "M_NOT_FOUND");
    bob.post(&of(&room, &elsewhere), body()).await.fails(404, "M_NOT_FOUND");
    bob.post(&of(&room, &event), json!({})).await.ok();
    bob.post("/users/nobody/report", body()).await.fails(400, "M_INVALID_PARAM");
    bob.post("/users/@a:x/report", json!({})).await.fails(400, "M_MISSING_PARAM");
    bob.post("/rooms/!r:x/report", json!({ "reason": 1 })).await.fails(400, "M_BAD_JSON");
    server.anyone().post("/rooms/!r:x/report", body()).await.fails(401, "M_MISSING_TOKEN");
    let long = json!({ "reason": "x".repeat(MAX_REASON_BYTES + 1) });
    bob.post("/rooms/!r:x/report", long).await.fails(400, "M_INVALID_PARAM");
    bob.post(&format!("/rooms/{}/leave", escape(&room)), json!({})).await.ok();
    bob.post(&of(&room, &event), body()).await.fails(404, "M_NOT_FOUND");
    for _ in 1..MAX_REPORTS_PER_USER {
        bob.post("/rooms/!r:x/report", body()).await.ok();
    }
    bob.post("/rooms/!r:x/report", body()).await.fails(429, "M_LIMIT_EXCEEDED");
    ann.post("/rooms/!r:x/report", body()).await.ok();
}

#[actix_web::test]
async fn the_server_speaks_to_a_user_in_one_room() {
    let server = Server::new();
    let (ann, root) = (server.user("ann").await, server.admin("root").await);
    let notice = json!({
        "user_id": ann.user, "content": { "msgtype": "m.text", "body": "Mind the gap" },
    });
    ann.post(NOTICE, notice.clone()).await.fails(403, "M_FORBIDDEN");
    let event = root.post(NOTICE, notice.clone()).await.ok()["event_id"].clone();
    let sync = ann.get("/sync").await.ok();
    let (room, invite) = sync["rooms"]["invite"].as_object().unwrap().iter().next().unwrap();
    assert_eq!(invite["invite_state"]["events"][0]["sender"], "@_server:example.org");

    // The invite cannot be rejected, in either way.
    let leave = format!("/rooms/{}/leave", escape(room));
    let member = format!("/rooms/{}/state/m.room.member/{}", escape(room), escape(&ann.user));
    const CODE: &str = "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM";
    ann.post(&leave, json!({})).await.fails(403, CODE);
    ann.put(&member, json!({ "membership": "leave" })).await.fails(403, CODE);
    ann.join(room).await;
    let path = format!("/rooms/{}/event/{}", escape(room), escape(event.as_str().unwrap()));
    assert_eq!(ann.get(&path).await.ok()["content"]["body"], "Mind the gap");
    let tags = format!("/user/{}/rooms/{}/account_data/m.tag", ann.user, escape(room));
    let tagged = json!({ "tags": { "m.server_notice": {} } });
    assert_eq!(ann.get(&tags).await.ok(), tagged);
    let reply = format!("/rooms/{}/send/m.room.message/1", escape(room));
    ann.put(&reply, json!({ "body": "?" })).await.fails(403, "M_FORBIDDEN");

    // Whoever has left is invited again, to the same room.
    ann.post(&leave, json!({})).await.ok();
    let again = root.put(&format!("{NOTICE}/7"), notice.clone()).await.ok();
    assert_eq!(ann.membership(room, &ann.user).await.as_deref(), Some("invite"));
    assert_eq!(root.put(&format!("{NOTICE}/7"), notice.clone()).await.ok(), again);
    let own = "/_exeunt/admin/v1/notices";
    assert_ne!(root.post(own, notice.clone()).await.ok(), again);
    assert_ne!(root.put(&format!("{own}/8"), notice.clone()).await.ok(), again);

    for (user, status, code) in [
        ("@none:example.org", 404, "M_NOT_FOUND"),
        ("@bob:else.org", 404, "M_NOT_FOUND"),
        ("@_server:example.org", 400, "M_INVALID_PARAM"),
    ] {
        let body = json!({ "user_id": user, "content": {} });
        root.post(NOTICE, body).await.fails(status, code);
    }
    root.post(NOTICE, json!({ "user_id": ann.user })).await.fails(400, "M_MISSING_PARAM");
    // The name is taken, and nobody can log in by it.
    let register = json!({ "username": "_server", "password": "a long password" });
    server.anyone().post("/register", register).await.fails(400, "M_EXCLUSIVE");
}

/// The name of a person is not the server's to speak by.
#[actix_web::test]
async fn a_persons_account_says_no_notices() {
    let server = Server::new();
    let (ann, root) = (server.user("ann").await, server.admin("root").await);
    let person = exeunt_users::NewAccount {
        localpart: Some("_server"),
        password: Some("a long password"),
        ..exeunt_users::NewAccount::default()
    };
    server.api.users.register(person).await.unwrap();
    let notice = json!({ "user_id": ann.user, "content": {} });
    root.post(NOTICE, notice).await.fails(409, "M_USER_IN_USE");
}

#[actix_web::test]
async fn the_support_contact_is_what_the_operator_says() {
    let path = "/.well-known/matrix/support";
    Server::new().anyone().get(path).await.fails(404, "M_NOT_FOUND");
    let contact = |role, email: &str| SupportContact {
        role,
        email: Some(email.into()),
        ..SupportContact::default()
    };
    let security = SupportContact {
        role: "m.role.security",
        user: Some("@sec:else.org".try_into().unwrap()),
        ..SupportContact::default()
    };
    let support = Support {
        contacts: vec![contact("m.role.admin", "a@example.org"), security],
        page: Some("https://example.org/help".into()),
    };
    let server = Server::with(Options { support, ..Options::default() });
    let expected: Value = json!({
        "contacts": [
            { "role": "m.role.admin", "email_address": "a@example.org" },
            { "role": "m.role.security", "matrix_id": "@sec:else.org" },
        ],
        "support_page": "https://example.org/help",
    });
    assert_eq!(server.anyone().get(path).await.ok(), expected);
}
