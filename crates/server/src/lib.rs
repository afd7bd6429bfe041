//! The binary `exeunt`: configuration, composition root, background tasks, subcommands.

mod adapters;
pub mod app;
mod app_services;

pub mod cli;
pub mod clock;
pub mod config;
pub mod failure;
pub mod listen;
pub mod logging;
mod malloc;
pub mod metrics;
pub mod signing_key;
pub mod tls;
