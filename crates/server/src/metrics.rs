//! `GET /metrics` in Prometheus' text format, on listeners that serve "metrics".
//!
//! Counters count since the start of the process; gauges are read from the store when they are
//! asked for. `docs/metrics.md` lists them.

use exeunt_http::{Authenticator, MatrixError, Method, RawCall, Reply, RequestHead, Routes};
use exeunt_store::{
    Reader, Store, StoreError,
    tables::{Departures, Destinations, Pending, Rooms, SetAside},
    waiting_servers,
};
use metrics::gauge;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use crate::{clock, failure::Failure};

/// What the endpoint works with.
#[derive(Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
    store: Store,
}

impl Metrics {
    /// Starts to count. Once in a process.
    pub fn install(store: Store) -> Result<Self, Failure> {
        let handle = PrometheusBuilder::new().install_recorder().map_err(Failure::Metrics)?;
        gauge!("exeunt_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        Ok(Self { handle, store })
    }
}

impl Authenticator for Metrics {
    type Identity = ();

    async fn authenticate(&self, _: &RequestHead, _: &[u8]) -> Result<(), MatrixError> {
        Ok(())
    }
}

pub fn routes(metrics: Metrics) -> Routes<Metrics> {
    Routes::new(metrics).public_raw(Method::GET, "/metrics", scrape)
}

async fn scrape(metrics: Metrics, _: RawCall) -> Result<Reply, MatrixError> {
    let now = clock::now_ms();
    let read = metrics.store.read(move |reader| Gauges::read(reader, now)).await;
    read.map_err(|error: StoreError| MatrixError::internal(&error))?.set();
    if let Some(bytes) = resident_bytes() {
        gauge!("process_resident_memory_bytes").set(bytes);
    }
    const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
    Ok(Reply::bytes(TEXT, metrics.handle.render()))
}

/// What waits in the store.
#[derive(Default)]
struct Gauges {
    departures: usize,
    oldest_departure_ms: u64,
    invites: usize,
    knocks: usize,
    rooms: usize,
    destinations: usize,
    failing: usize,
    set_aside: usize,
}

impl Gauges {
    fn read(reader: &Reader<'_>, now: u64) -> Result<Self, StoreError> {
        let mut gauges = Self::default();
        for row in reader.scan::<Departures>(()).iter() {
            let age = now.saturating_sub(row?.1.departed_at);
            gauges.departures += 1;
            gauges.oldest_departure_ms = gauges.oldest_departure_ms.max(age);
        }
        for row in reader.scan::<Pending>(()).iter() {
            match row?.1.membership.as_str() {
                "knock" => gauges.knocks += 1,
                _ => gauges.invites += 1,
            }
        }
        gauges.set_aside = reader.scan::<SetAside>(()).keys()?.len();
        gauges.rooms = reader.scan::<Rooms>(()).keys()?.len();
        for row in reader.scan::<Destinations>(()).iter() {
            gauges.failing += usize::from(row?.1.failing_since.is_some());
        }
        gauges.destinations = waiting_servers(reader, None, usize::MAX)?.len();
        Ok(gauges)
    }

    fn set(&self) {
        gauge!("exeunt_departures_waiting").set(self.departures as f64);
        let oldest = self.oldest_departure_ms as f64 / 1_000.0;
        gauge!("exeunt_departures_oldest_seconds").set(oldest);
        gauge!("exeunt_pending_invites").set(self.invites as f64);
        gauge!("exeunt_pending_knocks").set(self.knocks as f64);
        gauge!("exeunt_rooms").set(self.rooms as f64);
        gauge!("exeunt_destinations_waiting").set(self.destinations as f64);
        gauge!("exeunt_destinations_failing").set(self.failing as f64);
        gauge!("exeunt_events_set_aside").set(self.set_aside as f64);
    }
}

/// Memory in use, as the kernel counts it; `None` where it does not say.
fn resident_bytes() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0)
}
