//! The durable queue per destination and the departure outbox.
//!
//! `exeunt-room` writes rows in the batch of the event they belong to; this crate reads them and is
//! only woken. A row goes when its server has taken it. Nothing here knows rooms or HTTP: sending is
//! a port ([`Transport`]), trying a departure is a port ([`DepartureRunner`]).

mod backoff;
mod catch_up;
mod departures;
mod destination;
mod refused_leave;
mod sender;
mod set_aside;
mod transaction;
mod transport;

use std::sync::Arc;

use tokio::sync::watch;

pub use backoff::Backoff;
pub use catch_up::{EDU_LIFE_MS, LONG_OUTAGE_MS, MAX_MISSED_EDUS, MAX_MISSED_PER_ROOM};
pub use departures::{
    DepartureOptions, DepartureOutcome, DepartureRunner, Departures, MAX_DEPARTURES_AT_ONCE,
    STUCK_AFTER_MS,
};
pub use sender::{MAX_SENDING, Options, Sender};
pub use set_aside::{MAX_SET_ASIDE, MAX_WHY_BYTES};
pub use transaction::{MAX_EDUS, MAX_PDUS};
pub use transport::{SendError, TransactionAnswer, Transport};

/// Milliseconds since the epoch.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;
/// A random number from 0 to 1.
pub type Jitter = Arc<dyn Fn() -> f64 + Send + Sync>;
/// Becomes true when everything is to stop. What is under way is dropped: it is durable.
pub type Shutdown = watch::Receiver<bool>;

/// Runs `work` until it ends or the server stops.
async fn until_shutdown(mut shutdown: Shutdown, work: impl Future<Output = ()>) {
    let stop = async {
        if shutdown.wait_for(|stop| *stop).await.is_err() {
            // Nobody is left to say it.
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        biased;
        () = stop => {}
        () = work => {}
    }
}
