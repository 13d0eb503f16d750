//! Methods of both sides: what is decoded and written again is decoded to the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::{
    FRAME_OVERHEAD, Method, ServerMethod, decode_method, decode_server_method, put_method,
};

fuzz_target!(|data: &[u8]| {
    let mut wire = Vec::new();
    if let Ok(Method::Other(method)) = decode_method(data) {
        put_method(&mut wire, 1, &method);
        // Fields that are not kept, and NaN, which equals nothing, come out another way only once.
        let payload = &wire[7..wire.len() - 1];
        assert!(payload.len() <= data.len() + FRAME_OVERHEAD);
        assert!(matches!(decode_method(payload), Ok(Method::Other(_))));
    }
    wire.clear();
    if let Ok(ServerMethod::Other(method)) = decode_server_method(data) {
        put_method(&mut wire, 1, &method);
        assert!(matches!(
            decode_server_method(&wire[7..wire.len() - 1]),
            Ok(ServerMethod::Other(_))
        ));
    }
});
