use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::*;

/// Answers by the first label: `none`, `fail`, or an address.
#[derive(Default)]
struct Fake(AtomicUsize);

#[async_trait]
impl Dns for Fake {
    async fn addresses(&self, host: &str) -> Result<Answer<IpAddr>, DnsError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        match host {
            "fail.test" => Err(DnsError("SERVFAIL".into())),
            "none.test" => Ok(Answer { records: Vec::new(), ttl_ms: 86_400_000 }),
            _ => Ok(Answer { records: vec![IpAddr::from([1, 1, 1, 1])], ttl_ms: 60_000 }),
        }
    }

    async fn services(&self, _: &str) -> Result<Answer<Srv>, DnsError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(Answer { records: Vec::new(), ttl_ms: 0 })
    }
}

#[tokio::test]
async fn answers_and_failures_are_kept_for_their_time() {
    let time = Arc::new(AtomicU64::new(0));
    let clock: Clock = Arc::new({
        let time = time.clone();
        move || time.load(Ordering::SeqCst)
    });
    let dns = CachedDns::new(Fake::default(), clock);
    let asked = || dns.inner.0.swap(0, Ordering::SeqCst);
    let cases =
        [("a.test", 60_000), ("none.test", MAX_NEGATIVE_TTL_MS), ("fail.test", FAILURE_TTL_MS)];
    for (host, ttl) in cases {
        time.store(0, Ordering::SeqCst);
        let first = dns.addresses(host).await;
        assert_eq!(dns.addresses(&host.to_uppercase()).await, first);
        time.store(ttl - 1, Ordering::SeqCst);
        assert_eq!(dns.addresses(host).await, first);
        assert_eq!(asked(), 1, "{host}");
        time.store(ttl, Ordering::SeqCst);
        assert_eq!(dns.addresses(host).await, first);
        assert_eq!(asked(), 1, "{host}");
    }
    dns.services("s.test").await.unwrap();
    dns.services("s.test").await.unwrap();
    assert_eq!(asked(), 1);
    let literal = dns.addresses("9.9.9.9").await.unwrap();
    assert_eq!((literal.records, asked()), (vec![IpAddr::from([9, 9, 9, 9])], 0));
}
