//! What a certificate says, in the form that RabbitMQ shows and logs users in by (RFC 4514 with the most specific part first).

use std::fmt::Write;

use x509_parser::prelude::{FromDer, GeneralName, X509Certificate, X509Name};
use x509_parser::time::ASN1Time;

use crate::config::{LoginFrom, SanType};
use crate::model::peer::PeerCertificate;

/// Attributes that have a short name, by OID.
const SHORT_NAMES: [(&str, &str); 17] = [
    ("2.5.4.4", "SN"),
    ("2.5.4.42", "GIVENNAME"),
    ("2.5.4.43", "INITIALS"),
    ("2.5.4.44", "GENERATIONQUALIFIER"),
    ("2.5.4.3", "CN"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.12", "TITLE"),
    ("2.5.4.6", "C"),
    ("2.5.4.5", "SERIALNUMBER"),
    ("2.5.4.65", "PSEUDONYM"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("1.2.840.113549.1.9.1", "EMAILADDRESS"),
    ("2.5.4.9", "STREET"),
    ("0.9.2342.19200300.100.1.1", "UID"),
];

/// What is known of a client by its certificate.
pub(super) fn describe(der: &[u8], login_from: &LoginFrom) -> Option<PeerCertificate> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let validity = certificate.validity();
    Some(PeerCertificate {
        subject: distinguished_name(certificate.subject()),
        issuer: distinguished_name(certificate.issuer()),
        validity: format!("{} - {}", time(validity.not_before), time(validity.not_after)),
        serial_number: serial_number(certificate.tbs_certificate.raw_serial()),
        user: user(&certificate, login_from),
    })
}

/// A number in hexadecimal.
fn serial_number(octets: &[u8]) -> String {
    let digits: String = octets
        .iter()
        .flat_map(|octet| [octet >> 4, octet & 15])
        .map(|digit| char::from(b"0123456789ABCDEF"[usize::from(digit)]))
        .collect();
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() { "0".to_owned() } else { digits.to_owned() }
}

/// When it ends, in seconds since 1970.
pub(super) fn not_after(der: &[u8]) -> Option<i64> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    Some(certificate.validity().not_after.timestamp())
}

/// The host names it is for.
pub(super) fn dns_names(der: &[u8]) -> Vec<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else {
        return Vec::new();
    };
    alternative_names(&certificate, SanType::Dns)
}

fn user(certificate: &X509Certificate<'_>, login_from: &LoginFrom) -> Option<String> {
    match login_from {
        LoginFrom::DistinguishedName => Some(distinguished_name(certificate.subject())),
        LoginFrom::CommonName => {
            let names: Vec<_> =
                certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok()).collect();
            (!names.is_empty()).then(|| names.join(","))
        }
        LoginFrom::AlternativeName(kind, index) => alternative_names(certificate, *kind).into_iter().nth(*index),
    }
}

fn alternative_names(certificate: &X509Certificate<'_>, kind: SanType) -> Vec<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    let names = extension.value.general_names.iter();
    names
        .filter_map(|name| match (kind, name) {
            (SanType::Dns, GeneralName::DNSName(text))
            | (SanType::Email, GeneralName::RFC822Name(text))
            | (SanType::Uri, GeneralName::URI(text)) => Some((*text).to_owned()),
            (SanType::Ip, GeneralName::IPAddress(octets)) => ip(octets),
            _ => None,
        })
        .collect()
}

fn ip(octets: &[u8]) -> Option<String> {
    if let Ok(four) = <[u8; 4]>::try_from(octets) {
        return Some(std::net::Ipv4Addr::from(four).to_string());
    }
    Some(std::net::Ipv6Addr::from(<[u8; 16]>::try_from(octets).ok()?).to_string())
}

fn distinguished_name(name: &X509Name<'_>) -> String {
    let parts: Vec<String> = name
        .iter_rdn()
        .map(|rdn| {
            let attributes = rdn.iter().map(|attribute| {
                let oid = attribute.attr_type().to_id_string();
                let name = SHORT_NAMES.iter().find(|(known, _)| *known == oid).map_or(&*oid, |(_, name)| name);
                format!("{name}={}", escaped(attribute.as_str().unwrap_or_default()))
            });
            attributes.collect::<Vec<_>>().join("+")
        })
        .collect();
    parts.into_iter().rev().collect::<Vec<_>>().join(",")
}

/// As RabbitMQ escapes: what RFC 4514 wants, and every octet that is no printable ASCII.
fn escaped(value: &str) -> String {
    let octets = value.as_bytes();
    let last = octets.len().saturating_sub(1);
    let mut text = String::with_capacity(octets.len());
    for (at, octet) in octets.iter().enumerate() {
        match octet {
            b' ' if at == 0 || at == last => text.push_str("\\ "),
            b'#' if at == 0 => text.push_str("\\#"),
            b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\' => {
                text.push('\\');
                text.push(char::from(*octet));
            }
            0..32 | 126.. => {
                let _ = write!(text, "\\{octet:02X}");
            }
            _ => text.push(char::from(*octet)),
        }
    }
    text
}

fn time(time: ASN1Time) -> String {
    let at = time.to_datetime();
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second()
    )
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn what_has_a_meaning_is_escaped() {
        assert_eq!(escaped("Ann, Bob & Co"), "Ann\\, Bob & Co");
        assert_eq!(escaped(" #a "), "\\ #a\\ ");
        assert_eq!(escaped("#a"), "\\#a");
        assert_eq!(escaped("\u{e9}~"), "\\C3\\A9\\7E");
        assert_eq!(escaped(""), "");
    }
}
