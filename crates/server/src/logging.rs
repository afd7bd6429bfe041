//! The log on standard error.

use std::io::{self, IsTerminal};

use tracing_subscriber::{
    EnvFilter, Layer, layer::SubscriberExt, registry::Registry, util::SubscriberInitExt,
};

use crate::config::{Log, LogFormat};

/// Starts the log of this process. Later calls change nothing.
pub fn start(log: &Log) {
    let filter = EnvFilter::new(log.filter.directives());
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    let layer: Box<dyn Layer<Registry> + Send + Sync> = match log.format {
        LogFormat::Text => lines.with_filter(filter).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_filter(filter).boxed(),
    };
    // An error means that a test harness or an earlier call has set a subscriber.
    if tracing_subscriber::registry().with(layer).try_init().is_err() {
        tracing::debug!("the log was started before");
    }
}
