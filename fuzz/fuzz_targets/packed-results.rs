#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| scheduler_fuzz::packed_results(data));
