//! The directory for other servers, and the tree of a space.

use exeunt_fed_api::Options;
use serde_json::json;

use crate::common::{plain, site, site_with};

const PATH: &str = "/_matrix/federation/v1/publicRooms";

#[actix_web::test]
async fn the_directory_is_shown_if_the_operator_wants_it() {
    let site = site().await;
    site.get(site.b(), PATH).await.expect(403, "M_FORBIDDEN");
    site.post(site.b(), PATH, json!({})).await.expect(403, "M_FORBIDDEN");

    let site = site_with(Options { public_rooms: true, ..Options::default() }).await;
    site.send(plain("GET", PATH, None)).await.expect(401, "M_UNAUTHORIZED");
    site.send(plain("POST", PATH, Some(&json!({})))).await.expect(401, "M_UNAUTHORIZED");
    let none = json!({ "chunk": [], "total_room_count_estimate": 0 });
    assert_eq!(site.get(site.b(), PATH).await.ok(), none);
    site.a().rooms.set_published(&site.room, &site.ann, true).await.unwrap();
    let all = site.get(site.b(), &format!("{PATH}?limit=5&include_all_networks=true")).await.ok();
    assert_eq!(all["chunk"][0]["room_id"], site.room.as_str());
    let search = json!({ "filter": { "generic_search_term": "nothing like it" } });
    assert_eq!(site.post(site.b(), PATH, search).await.ok(), none);
    let spaces = json!({ "filter": { "room_types": ["m.space"] }, "limit": 1 });
    assert_eq!(site.post(site.b(), PATH, spaces).await.ok(), none);
    for query in ["limit=x", "since=x", "third_party_instance_id=irc"] {
        let answer = site.get(site.b(), &format!("{PATH}?{query}")).await;
        answer.expect(400, "M_INVALID_PARAM");
    }
    site.post(site.b(), PATH, json!({ "limit": "x" })).await.expect(400, "M_BAD_JSON");
}

#[actix_web::test]
async fn the_tree_of_a_space() {
    let site = site().await;
    let path =
        format!("/_matrix/federation/v1/hierarchy/{}", site.room.as_str().replace('!', "%21"));
    let answer = site.get(site.b(), &path).await.ok();
    assert_eq!(answer["room"]["room_id"], site.room.as_str());
    assert_eq!(answer["room"]["children_state"], json!([]));
    assert_eq!((&answer["children"], &answer["inaccessible_children"]), (&json!([]), &json!([])));
    let flag = format!("{path}?suggested_only=maybe");
    site.get(site.b(), &flag).await.expect(400, "M_INVALID_PARAM");
    let unknown = "/_matrix/federation/v1/hierarchy/%21none:a.example";
    site.get(site.b(), unknown).await.expect(404, "M_NOT_FOUND");
    site.send(plain("GET", &path, None)).await.expect(401, "M_UNAUTHORIZED");
}
