// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Requests to the server: no bytes do harm, more bytes behind a head change nothing of it, and neither name nor range leads
//! out of the store.
#![no_main]

use evenkeel_serve::name;
use evenkeel_serve::plan::{Plan, plan};
use evenkeel_serve::request::Request;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(Some((request, used))) = Request::parse(bytes, 64) else { return };
    assert!(used <= bytes.len());
    assert_eq!(Request::parse(&bytes[..used], 64), Ok(Some((request.clone(), used))));
    if let Some((name, _)) = name::object(&request.target) {
        assert!(name.split('/').all(|part| !part.is_empty() && !part.starts_with('.')));
        assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'/' || byte == b'.'));
    }
    for size in [0, 1, 1000, u64::MAX] {
        if let Plan::Part { start, len } = plan(request.method == "GET", &request.conditions(), size, "\"tag\"") {
            assert!(len > 0 && start.checked_add(len).is_some_and(|end| end <= size));
        }
    }
});
