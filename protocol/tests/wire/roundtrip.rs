//! What is encoded is decoded to the same.

use amq_protocol::protocol::AMQPClass;
use amq_protocol::protocol::basic::AMQPMethod as Basic;
use proptest::prelude::*;
use protocol::{
    Ack, Decoded, Deliver, Frame, FrameKind, GetOk, Method, Nack, Properties, Publish, Reject, Return, ServerMethod,
    address, decode_frame, decode_header, decode_method, decode_server_method, encode_properties, put_frame,
    put_method, replace_headers, table,
};

/// The payload of the only frame on the wire.
fn payload(wire: &[u8], kind: FrameKind, channel: u16) -> &[u8] {
    match decode_frame(wire, 0) {
        Ok(Decoded::Frame { frame, consumed }) => {
            assert_eq!((frame.kind, frame.channel, consumed), (kind, channel, wire.len()));
            frame.payload
        }
        other => panic!("{other:?}"),
    }
}

/// Checks one method against both decoders; at least one must take it.
fn check_method(method: &AMQPClass) {
    let mut wire = Vec::new();
    put_method(&mut wire, 7, method);
    let payload = payload(&wire, FrameKind::Method, 7);
    let (client, server) = (decode_method(payload), decode_server_method(payload));
    if let (Err(client), Err(server)) = (&client, &server) {
        panic!("{method:?}: {client} {server}");
    }
    if let Ok(decoded) = client {
        check_client(method, &decoded);
    }
    if let Ok(decoded) = server {
        check_server(method, &decoded);
    }
}

fn check_client(method: &AMQPClass, decoded: &Method<'_>) {
    match (method, decoded) {
        (AMQPClass::Basic(Basic::Publish(m)), decoded) => {
            let address = address(m.exchange.as_str(), m.routing_key.as_str());
            let expected = Publish {
                exchange: m.exchange.as_str().as_bytes(),
                routing_key: m.routing_key.as_str().as_bytes(),
                address: &address,
                mandatory: m.mandatory,
                immediate: m.immediate,
            };
            assert_eq!(*decoded, Method::Publish(expected));
        }
        (AMQPClass::Basic(Basic::Ack(m)), decoded) => {
            assert_eq!(*decoded, Method::Ack(Ack { delivery_tag: m.delivery_tag, multiple: m.multiple }));
        }
        (AMQPClass::Basic(Basic::Nack(m)), decoded) => {
            let expected = Nack { delivery_tag: m.delivery_tag, multiple: m.multiple, requeue: m.requeue };
            assert_eq!(*decoded, Method::Nack(expected));
        }
        (AMQPClass::Basic(Basic::Reject(m)), decoded) => {
            assert_eq!(*decoded, Method::Reject(Reject { delivery_tag: m.delivery_tag, requeue: m.requeue }));
        }
        (method, Method::Other(decoded)) => assert_eq!(**decoded, *method),
        (method, decoded) => panic!("{method:?} became {decoded:?}"),
    }
}

fn check_server(method: &AMQPClass, decoded: &ServerMethod<'_>) {
    match (method, decoded) {
        (AMQPClass::Basic(Basic::Deliver(m)), decoded) => {
            let address = address(m.exchange.as_str(), m.routing_key.as_str());
            let expected = Deliver {
                consumer_tag: m.consumer_tag.as_str(),
                delivery_tag: m.delivery_tag,
                redelivered: m.redelivered,
                exchange: m.exchange.as_str(),
                routing_key: m.routing_key.as_str(),
                address: &address,
            };
            assert_eq!(*decoded, ServerMethod::Deliver(expected));
        }
        (AMQPClass::Basic(Basic::GetOk(m)), decoded) => {
            let address = address(m.exchange.as_str(), m.routing_key.as_str());
            let expected = GetOk {
                delivery_tag: m.delivery_tag,
                redelivered: m.redelivered,
                exchange: m.exchange.as_str(),
                routing_key: m.routing_key.as_str(),
                address: &address,
                message_count: m.message_count,
            };
            assert_eq!(*decoded, ServerMethod::GetOk(expected));
        }
        (AMQPClass::Basic(Basic::Return(m)), decoded) => {
            let address = address(m.exchange.as_str(), m.routing_key.as_str());
            let expected = Return {
                code: m.reply_code,
                text: m.reply_text.as_str(),
                exchange: m.exchange.as_str(),
                routing_key: m.routing_key.as_str(),
                address: &address,
            };
            assert_eq!(*decoded, ServerMethod::Return(expected));
        }
        (AMQPClass::Basic(Basic::Ack(m)), decoded) => {
            assert_eq!(*decoded, ServerMethod::Ack(Ack { delivery_tag: m.delivery_tag, multiple: m.multiple }));
        }
        (AMQPClass::Basic(Basic::Nack(m)), decoded) => {
            let expected = Nack { delivery_tag: m.delivery_tag, multiple: m.multiple, requeue: m.requeue };
            assert_eq!(*decoded, ServerMethod::Nack(expected));
        }
        (method, ServerMethod::Other(decoded)) => assert_eq!(**decoded, *method),
        (method, decoded) => panic!("{method:?} became {decoded:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn methods(parts in crate::values::parts()) {
        for method in crate::values::all_methods(parts) {
            check_method(&method);
        }
    }

    /// Every cut of every method is refused, and so is every method with octets after it.
    #[test]
    fn methods_of_another_length(parts in crate::values::parts(), extra in any::<u8>()) {
        for method in crate::values::all_methods(parts) {
            let mut wire = Vec::new();
            put_method(&mut wire, 7, &method);
            let payload = payload(&wire, FrameKind::Method, 7);
            for len in 0..payload.len() {
                prop_assert!(decode_method(&payload[..len]).is_err(), "{:?} cut to {}", method, len);
                prop_assert!(decode_server_method(&payload[..len]).is_err(), "{:?} cut to {}", method, len);
            }
            let longer = [payload, &[extra]].concat();
            prop_assert!(decode_method(&longer).is_err(), "{:?} and {}", method, extra);
            prop_assert!(decode_server_method(&longer).is_err(), "{:?} and {}", method, extra);
        }
    }

    #[test]
    fn frames(channel in 1u16.., body in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut wire = Vec::new();
        for kind in [FrameKind::Method, FrameKind::Header, FrameKind::Body] {
            wire.clear();
            put_frame(&mut wire, kind, channel, &body);
            let frame = Frame { kind, channel, payload: &body };
            prop_assert_eq!(decode_frame(&wire, 0), Ok(Decoded::Frame { frame, consumed: wire.len() }));
            for len in 0..wire.len() {
                let needed = if len < 7 { 7 } else { wire.len() };
                prop_assert_eq!(decode_frame(&wire[..len], 0), Ok(Decoded::Incomplete { needed }));
            }
        }
    }

    /// Our check agrees with what `amq-protocol` writes and reads, and our iterator sees the same fields.
    #[test]
    fn tables(fields in crate::values::table()) {
        let raw = encode_properties(&protocol::amqp::BasicProperties::default().with_headers(fields.clone()));
        let properties = Properties::parse(&raw).unwrap();
        let body = properties.headers().unwrap();
        prop_assert_eq!(table::check(body), Ok(()));
        let names: Vec<_> = table::TableIter::new(body).map(|field| field.unwrap().0).collect();
        let expected: Vec<_> = fields.inner().keys().map(|name| name.as_str().as_bytes()).collect();
        prop_assert_eq!(&names, &expected);
        for name in expected {
            prop_assert!(table::lookup(body, name).is_some());
        }
        for len in 0..body.len() {
            let cut = &body[..len];
            let fields = table::TableIter::new(cut).filter(Result::is_ok).count();
            prop_assert!(fields <= names.len());
            // A cut between two fields leaves a table; any other does not.
            if table::check(cut).is_ok() {
                prop_assert!(fields < names.len());
            }
        }
    }

    #[test]
    fn properties(expected in crate::values::properties(), body_size in any::<u64>()) {
        let raw = encode_properties(&expected);
        let found = Properties::parse(&raw).unwrap();
        let text = |value: &Option<protocol::amqp::ShortString>| {
            value.as_ref().map(|text| text.as_str().as_bytes().to_vec())
        };
        let own = |value: Option<&[u8]>| value.map(<[u8]>::to_vec);
        prop_assert_eq!(own(found.content_type()), text(expected.content_type()));
        prop_assert_eq!(own(found.content_encoding()), text(expected.content_encoding()));
        prop_assert_eq!(found.headers().is_some(), expected.headers().is_some());
        prop_assert_eq!(found.delivery_mode(), *expected.delivery_mode());
        prop_assert_eq!(found.priority(), *expected.priority());
        prop_assert_eq!(own(found.correlation_id()), text(expected.correlation_id()));
        prop_assert_eq!(own(found.reply_to()), text(expected.reply_to()));
        prop_assert_eq!(own(found.expiration()), text(expected.expiration()));
        prop_assert_eq!(own(found.message_id()), text(expected.message_id()));
        prop_assert_eq!(found.timestamp(), *expected.timestamp());
        prop_assert_eq!(own(found.kind()), text(expected.kind()));
        prop_assert_eq!(own(found.user_id()), text(expected.user_id()));
        prop_assert_eq!(own(found.app_id()), text(expected.app_id()));
        prop_assert_eq!(own(found.cluster_id()), text(expected.cluster_id()));

        let payload = [&[0, 60, 0, 0][..], &body_size.to_be_bytes(), &raw].concat();
        let header = decode_header(&payload).unwrap();
        prop_assert_eq!((header.class_id, header.weight, header.body_size), (60, 0, body_size));
        prop_assert_eq!(header.properties, &raw[..]);
        for len in 0..payload.len() {
            prop_assert!(decode_header(&payload[..len]).is_err());
        }
        prop_assert!(decode_header(&[&payload[..], &[0]].concat()).is_err());

        // Putting the same headers in again changes nothing; other headers change nothing else.
        if let Some(headers) = found.headers() {
            prop_assert_eq!(replace_headers(&raw, headers), raw.clone());
        }
        let replaced = replace_headers(&raw, b"\x01aV");
        let replaced = Properties::parse(&replaced).unwrap();
        prop_assert_eq!(replaced.headers(), Some(&b"\x01aV"[..]));
        prop_assert_eq!(replaced.content_type(), found.content_type());
        prop_assert_eq!(replaced.delivery_mode(), found.delivery_mode());
        prop_assert_eq!(replaced.cluster_id(), found.cluster_id());
    }
}
