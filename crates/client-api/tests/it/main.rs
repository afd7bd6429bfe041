//! The client API as a client sees it, over a store in memory and other servers that fail.

mod account_data;
mod accounts;
mod admin;
mod app_services;
mod common;
mod create;
mod deactivate;
mod directory;
mod discovery;
mod filter;
mod gate;
mod knock;
mod membership;
mod profile;
mod public_rooms;
mod push_rules;
mod r0;
mod registration_tokens;
mod remote;
mod reports;
mod send;
mod sessions;
mod spaces;
mod upgrade;
mod user_directory;
