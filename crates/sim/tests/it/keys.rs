//! Keys of other servers: what one request fetches, all get.

use exeunt_sim::Mesh;

/// Requests that come side by side from a server that was never heard of: each finds its key,
/// whichever of them asked for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn requests_side_by_side_share_the_keys_that_one_fetches() {
    let names: Vec<_> = (0..60).map(|n| format!("s{n}.example")).collect();
    let mesh = Mesh::new(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let ours = mesh.server("s0.example");
    for name in &names[1..] {
        let theirs = mesh.server(name).name.clone();
        let requests = (0..16).map(|_| {
            let (rooms, theirs) = (ours.rooms.clone(), theirs.clone());
            tokio::spawn(async move {
                let keys = rooms.keys().for_request(&theirs, "ed25519:sim").await.unwrap();
                keys.get(&theirs, "ed25519:sim").is_some()
            })
        });
        for request in requests.collect::<Vec<_>>() {
            assert!(request.await.unwrap(), "a request of {theirs} found no key");
        }
    }
}
