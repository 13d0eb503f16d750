//! The first eight octets of a connection.

/// What a client of AMQP 0-9-1 sends first, and what everybody else is answered.
pub const PROTOCOL_HEADER: [u8; 8] = *b"AMQP\x00\x00\x09\x01";

/// The header of clients from before 0-9-1 was final; RabbitMQ takes it for the same protocol.
const EARLY_HEADER: [u8; 8] = *b"AMQP\x01\x01\x00\x09";

/// Checks what a client sent first.
///
/// # Errors
///
/// The octets to answer before the connection is closed.
pub fn check_protocol_header(first: &[u8; 8]) -> Result<(), [u8; 8]> {
    if *first == PROTOCOL_HEADER || *first == EARLY_HEADER { Ok(()) } else { Err(PROTOCOL_HEADER) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_both_headers_of_0_9_1() {
        assert_eq!(check_protocol_header(b"AMQP\x00\x00\x09\x01"), Ok(()));
        assert_eq!(check_protocol_header(b"AMQP\x01\x01\x00\x09"), Ok(()));
    }

    #[test]
    fn answers_everything_else_with_its_own() {
        for other in [
            b"AMQP\x00\x00\x09\x00",
            b"AMQP\x00\x00\x0a\x01",
            b"AMQP\x03\x01\x00\x00",
            b"AMQP\x00\x01\x00\x00",
            b"AMQP\x01\x01\x08\x00",
            b"GET / HT",
            b"\x16\x03\x01\x02\x00\x01\x00\x01",
        ] {
            assert_eq!(check_protocol_header(other), Err(*b"AMQP\x00\x00\x09\x01"));
        }
    }
}
