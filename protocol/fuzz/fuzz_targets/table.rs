//! Tables: what the check lets through, the iterators read without an error, and the parser of methods takes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::{ArrayIter, TableIter, ValueRef, decode_method, lookup, table};

fuzz_target!(|data: &[u8]| {
    let sound = table::check(data).is_ok();
    let mut below = Vec::new();
    for field in TableIter::new(data) {
        match field {
            Ok((name, value)) => {
                assert!(lookup(data, name).is_some());
                below.push(value);
            }
            Err(_) => assert!(!sound),
        }
    }
    while let Some(value) = below.pop() {
        match value {
            ValueRef::Table(inner) => {
                below.extend(
                    TableIter::new(inner)
                        .inspect(|f| assert!(f.is_ok() || !sound))
                        .flatten()
                        .map(|f| f.1),
                );
            }
            ValueRef::Array(inner) => {
                below.extend(
                    ArrayIter::new(inner)
                        .inspect(|v| assert!(v.is_ok() || !sound))
                        .flatten(),
                );
            }
            _ => {}
        }
    }
    let mut declare = vec![0, 50, 0, 10, 0, 0, 1, b'q', 0];
    declare.extend_from_slice(&(data.len() as u32).to_be_bytes());
    declare.extend_from_slice(data);
    assert_eq!(decode_method(&declare).is_ok(), sound);
});
