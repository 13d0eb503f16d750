//! The PROXY protocol: a proxy says in front of everything else for whom it speaks. Versions 1 (a line of text) and 2 (binary),
//! as HAProxy's `proxy-protocol.txt` describes them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt};

/// The first octets of a header of version 2.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// A line of version 1 with its end.
const LINE_MAX_BYTES: usize = 107;
/// What a header of version 2 may announce: addresses and some extensions.
const LENGTH_MAX: usize = 4096;

/// The client's address and the one it connected to; `None` when the proxy speaks for itself, or does not say.
pub(super) type Addresses = Option<(SocketAddr, SocketAddr)>;

/// Reads a header, and not an octet more.
pub(super) async fn read<S: AsyncRead + Unpin>(socket: &mut S) -> io::Result<Addresses> {
    let mut head = [0; 12];
    socket.read_exact(&mut head).await?;
    if &head == SIGNATURE {
        let mut rest = [0; 4];
        socket.read_exact(&mut rest).await?;
        let length = usize::from(u16::from_be_bytes([rest[2], rest[3]]));
        if length > LENGTH_MAX {
            return Err(wrong("it is too long"));
        }
        let mut body = vec![0; length];
        socket.read_exact(&mut body).await?;
        return binary(rest[0], rest[1], &body);
    }
    if !head.starts_with(b"PROXY ") {
        return Err(wrong("there is none"));
    }
    let mut line = head.to_vec();
    while !line.ends_with(b"\r\n") {
        if line.len() == LINE_MAX_BYTES {
            return Err(wrong("its line has no end"));
        }
        line.push(socket.read_u8().await?);
    }
    text(&line[..line.len() - 2])
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("PROXY protocol header: {what}"))
}

/// `PROXY TCP4 source destination source-port destination-port`
fn text(line: &[u8]) -> io::Result<Addresses> {
    let line = std::str::from_utf8(line).map_err(|_| wrong("it is no text"))?;
    let fields: Vec<&str> = line.split(' ').collect();
    match fields.as_slice() {
        ["PROXY", "UNKNOWN", ..] => Ok(None),
        ["PROXY", family @ ("TCP4" | "TCP6"), source, destination, source_port, destination_port] => {
            let address = |ip: &str, port: &str| {
                let ip: IpAddr = ip.parse().ok()?;
                let fits = ip.is_ipv4() == (*family == "TCP4");
                // Numbers as such: no sign, nothing in front.
                let digits = !port.is_empty() && port.bytes().all(|octet| octet.is_ascii_digit());
                (fits && digits).then(|| Some(SocketAddr::new(ip, port.parse().ok()?))).flatten()
            };
            match (address(source, source_port), address(destination, destination_port)) {
                (Some(source), Some(destination)) => Ok(Some((source, destination))),
                _ => Err(wrong("an address that is none")),
            }
        }
        _ => Err(wrong("a line that is none")),
    }
}

fn binary(version_and_command: u8, family: u8, body: &[u8]) -> io::Result<Addresses> {
    match version_and_command {
        // The proxy itself, such as its health check.
        0x20 => return Ok(None),
        0x21 => {}
        _ => return Err(wrong("a version or command that is not known")),
    }
    match family {
        0x11 => {
            let (ips, ports) = body.split_first_chunk::<8>().ok_or_else(|| wrong("it is too short"))?;
            let ip = |at: usize| IpAddr::V4(Ipv4Addr::new(ips[at], ips[at + 1], ips[at + 2], ips[at + 3]));
            with_ports(ip(0), ip(4), ports)
        }
        0x21 => {
            let (source, rest) = body.split_first_chunk::<16>().ok_or_else(|| wrong("it is too short"))?;
            let (destination, ports) = rest.split_first_chunk::<16>().ok_or_else(|| wrong("it is too short"))?;
            with_ports(Ipv6Addr::from(*source).into(), Ipv6Addr::from(*destination).into(), ports)
        }
        // Something else than TCP over IP: its addresses say nothing to us.
        _ => Ok(None),
    }
}

fn with_ports(source: IpAddr, destination: IpAddr, ports: &[u8]) -> io::Result<Addresses> {
    let ports = ports.first_chunk::<4>().ok_or_else(|| wrong("it is too short"))?;
    let port = |at: usize| u16::from_be_bytes([ports[at], ports[at + 1]]);
    Ok(Some((SocketAddr::new(source, port(0)), SocketAddr::new(destination, port(2)))))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(mut octets: &[u8]) -> io::Result<(Addresses, usize)> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let all = octets.len();
        let addresses = runtime.block_on(read(&mut octets))?;
        Ok((addresses, all - octets.len()))
    }

    fn both(source: &str, destination: &str) -> Addresses {
        Some((source.parse().unwrap(), destination.parse().unwrap()))
    }

    #[test]
    fn lines_are_read_and_nothing_behind_them() {
        let read = |line: &str| run(format!("{line}\r\nAMQP").as_bytes()).unwrap();
        let line = "PROXY TCP4 192.0.2.1 198.51.100.2 56324 5672";
        assert_eq!(read(line), (both("192.0.2.1:56324", "198.51.100.2:5672"), line.len() + 2));
        let six = "PROXY TCP6 2001:db8::1 ::1 1 65535";
        assert_eq!(read(six).0, both("[2001:db8::1]:1", "[::1]:65535"));
        assert_eq!(read("PROXY UNKNOWN").0, None);
        assert_eq!(read("PROXY UNKNOWN ffff::1 ffff::2 1 2").0, None);
    }

    #[test]
    fn lines_that_are_none_are_refused() {
        for line in [
            "PROXY TCP4 192.0.2.1 198.51.100.2 56324",
            "PROXY TCP4 192.0.2.1 198.51.100.2 56324 70000",
            "PROXY TCP4 192.0.2.1 198.51.100.2 +1 1",
            "PROXY TCP4 ::1 ::1 1 1",
            "PROXY TCP6 192.0.2.1 198.51.100.2 1 1",
            "PROXY  TCP4 192.0.2.1 198.51.100.2 1 1",
            "PROXY UDP4 192.0.2.1 198.51.100.2 1 1",
            "AMQP\0\0\u{9}\u{1}AMQP",
        ] {
            assert_eq!(run(format!("{line}\r\n").as_bytes()).unwrap_err().kind(), io::ErrorKind::InvalidData, "{line}");
        }
        let endless = [b"PROXY ".as_slice(), &[b'x'; 200]].concat();
        assert_eq!(run(&endless).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    fn header(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap();
        [SIGNATURE.as_slice(), &[command, family], &length.to_be_bytes(), body].concat()
    }

    #[test]
    fn the_binary_form_is_read_with_its_extensions() {
        let mut body = vec![192, 0, 2, 1, 198, 51, 100, 2, 0, 80, 0x16, 0x28];
        let octets = header(0x21, 0x11, &body);
        assert_eq!(run(&octets).unwrap(), (both("192.0.2.1:80", "198.51.100.2:5672"), octets.len()));
        body.extend([4, 0, 1, 0]);
        assert_eq!(run(&header(0x21, 0x11, &body)).unwrap().0, both("192.0.2.1:80", "198.51.100.2:5672"));
        assert_eq!(run(&header(0x20, 0, &[])).unwrap().0, None);
        assert_eq!(run(&header(0x21, 0x31, &[0; 216])).unwrap().0, None);
        let six = [[0; 16], [1; 16]].concat();
        let six = [six.as_slice(), &[0, 1, 0, 2]].concat();
        assert_eq!(run(&header(0x21, 0x21, &six)).unwrap().0, both("[::]:1", "[101:101:101:101:101:101:101:101]:2"));
        for wrong in [header(0x11, 0x11, &body), header(0x21, 0x11, &body[..11]), header(0x21, 0x21, &six[..35])] {
            assert!(run(&wrong).is_err());
        }
        assert!(run(&[SIGNATURE.as_slice(), &[0x21, 0x11, 0xff, 0xff]].concat()).is_err(), "too long");
    }

    proptest! {
        #[test]
        fn nothing_panics(octets in proptest::collection::vec(any::<u8>(), 0..80), which in 0..3) {
            let head: &[u8] = match which {
                0 => b"",
                1 => b"PROXY TCP4 ",
                _ => SIGNATURE,
            };
            let _ = run(&[head, &octets].concat());
        }
    }
}
