#![no_main]
//! See `muster_fuzz::protobuf`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| muster_fuzz::protobuf(data));
