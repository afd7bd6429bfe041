//! Bodies that are made while they are sent.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use actix_web::{
    App,
    body::MessageBody,
    dev::Service as _,
    test::{self, TestRequest},
};
use exeunt_http::{Bytes, Method, Reply, Routes, STREAM_TIMEOUT, Service};
use futures_util::stream;

use crate::common::Api;

/// The body of an endless answer, and a counter of the chunks that were made; whoever holds the
/// counter holds the answer.
async fn endless() -> (impl MessageBody, Arc<AtomicUsize>) {
    let made = Arc::new(AtomicUsize::new(0));
    let counter = made.clone();
    let routes = Routes::new(Api).public_raw(Method::GET, "/endless", move |_, _| {
        let counter = counter.clone();
        let chunks = stream::repeat_with(move || {
            counter.fetch_add(1, Ordering::SeqCst);
            Ok::<_, std::io::Error>("chunk")
        });
        async { Ok(Reply::json_stream(chunks)) }
    });
    let service = Service::new().mount(routes);
    let app = test::init_service(App::new().configure(|config| service.configure(config))).await;
    let answer = app.call(TestRequest::with_uri("/endless").to_request()).await.unwrap();
    drop(app);
    (answer.into_body(), made)
}

async fn next(body: &mut (impl MessageBody + Unpin)) -> Option<Result<Bytes, String>> {
    let mut body = pin!(body);
    let next = poll_fn(|context| body.as_mut().poll_next(context)).await?;
    Some(next.map_err(|error| error.into().to_string()))
}

#[actix_web::test]
async fn nothing_is_made_before_it_is_wanted() {
    let (body, made) = endless().await;
    let mut body = Box::pin(body);
    assert_eq!(made.load(Ordering::SeqCst), 0);
    for count in 1..4 {
        assert_eq!(next(&mut body).await, Some(Ok("chunk".into())));
        assert_eq!(made.load(Ordering::SeqCst), count);
    }
}

#[actix_web::test]
async fn who_does_not_read_holds_nothing_for_ever() {
    let (body, made) = endless().await;
    let mut body = Box::pin(body);
    assert_eq!(next(&mut body).await, Some(Ok("chunk".into())));
    let holders = Arc::strong_count(&made);
    tokio::time::pause();
    tokio::time::sleep(STREAM_TIMEOUT / 2).await;
    assert_eq!(Arc::strong_count(&made), holders);
    tokio::time::sleep(STREAM_TIMEOUT).await;
    assert_eq!(Arc::strong_count(&made), holders - 1);
    assert!(matches!(next(&mut body).await, Some(Err(_))));
}
