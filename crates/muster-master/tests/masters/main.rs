//! Masters with all their parts, over loopback sockets.

#![allow(clippy::unwrap_used)]

mod auth;
mod cluster;
mod cut;
mod events;
mod http;
mod operate;
mod operations;
mod rates;
mod reads;
mod slow;
mod support;
