//! What becomes of a handler whose client hangs up.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use crate::common::Api;
use actix_web::{
    App,
    dev::Service as _,
    test::{self, TestRequest},
};
use exeunt_http::{Method, Reply, Routes, Service};
use serde_json::json;
use tokio::sync::Notify;

/// What a handler and the test tell each other.
#[derive(Clone, Default)]
struct Progress {
    started: Arc<Notify>,
    go_on: Arc<Notify>,
    ended: Arc<Notify>,
    finished: Arc<AtomicBool>,
}

/// Tells that a handler has ended, one way or the other.
struct Ending(Arc<Notify>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

impl Progress {
    async fn handle(self) -> Reply {
        let _ending = Ending(self.ended);
        self.started.notify_one();
        self.go_on.notified().await;
        self.finished.store(true, Ordering::SeqCst);
        Reply::json(json!({}))
    }
}

/// Whether a handler for the method gets to its end after the client hung up halfway.
async fn finishes(method: Method) -> bool {
    let progress = Progress::default();
    let handler = progress.clone();
    let routes = Routes::new(Api).public_raw(method.clone(), "/wait", move |_, _| {
        let progress = handler.clone();
        async move { Ok(progress.handle().await) }
    });
    let service = Service::new().mount(routes);
    let app = test::init_service(App::new().configure(|config| service.configure(config))).await;
    let method = method.as_str().parse().unwrap();
    let request = TestRequest::with_uri("/wait").method(method).to_request();
    let mut answer = Box::pin(app.call(request));
    tokio::select! {
        _ = &mut answer => panic!("the handler waits for us"),
        () = progress.started.notified() => {}
    }
    drop(answer);
    progress.go_on.notify_one();
    progress.ended.notified().await;
    progress.finished.load(Ordering::SeqCst)
}

#[actix_web::test]
async fn changes_are_finished() {
    for method in [Method::POST, Method::PUT, Method::DELETE] {
        assert!(finishes(method.clone()).await, "{method}");
    }
}

#[actix_web::test]
async fn reads_are_given_up() {
    assert!(!finishes(Method::GET).await);
}
