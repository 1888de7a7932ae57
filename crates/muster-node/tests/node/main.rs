//! The machine from outside: text scenarios and its laws under random interleavings.

#![allow(clippy::unwrap_used)] // helpers of tests, which clippy does not see as such

mod executor_laws;
mod hello;
mod laws;
mod scenarios;
mod world;
