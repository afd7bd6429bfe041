//! What clients read: the views over a store in memory, with no other server in reach.

mod answer;
mod bench;
mod ephemeral;
mod leaving;
mod pages;
mod reads;
mod relations;
mod searching;
mod sync;
mod unread;
mod visibility;
