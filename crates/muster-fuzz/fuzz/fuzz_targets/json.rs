#![no_main]
//! See `muster_fuzz::json`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| muster_fuzz::json(data));
