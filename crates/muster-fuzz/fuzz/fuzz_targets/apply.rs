#![no_main]
//! See `muster_fuzz::apply`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| muster_fuzz::apply(data));
