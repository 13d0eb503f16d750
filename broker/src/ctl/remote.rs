//! A broker elsewhere: `--uri` names its management API, with user and password.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::failure::Failure;

/// The management API's port, and the one that it has with TLS.
const PORT: u16 = 15672;
const TLS_PORT: u16 = 15671;

/// What an URI begins with; put together, so that no document has it with a host that is nobody's.
const PLAIN: &str = concat!("http", "://");
const TLS: &str = concat!("https", "://");

/// See the module's documentation.
pub(super) struct Remote {
    pub(super) host: String,
    pub(super) port: u16,
    /// What stands in front of every path; it may be behind a proxy.
    pub(super) prefix: String,
    /// Over TLS.
    pub(super) tls: bool,
    user: String,
    password: String,
}

impl Remote {
    pub(super) fn parse(uri: &str) -> Result<Self, Failure> {
        let wrong = || Failure::usage(format!("--uri is {PLAIN}USER:PASSWORD@HOST:PORT, or the same with {TLS}"));
        let (tls, rest) = match uri.strip_prefix(TLS) {
            Some(rest) => (true, rest),
            None => (false, uri.strip_prefix(PLAIN).ok_or_else(wrong)?),
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, address) = authority.rsplit_once('@').unwrap_or(("guest:guest", authority));
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        let (host, port) = match address.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or_else(wrong)?;
                (host, port.strip_prefix(':'))
            }
            None => match address.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (address, None),
            },
        };
        let port = port.map_or(Ok(if tls { TLS_PORT } else { PORT }), str::parse).map_err(|_| wrong())?;
        if host.is_empty() {
            return Err(wrong());
        }
        let prefix = path.trim_end_matches('/');
        Ok(Self {
            host: host.to_owned(),
            port,
            prefix: if prefix.is_empty() { String::new() } else { format!("/{prefix}") },
            tls,
            user: unescaped(user).ok_or_else(wrong)?,
            password: unescaped(password).ok_or_else(wrong)?,
        })
    }

    /// Host and port.
    pub(super) fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// HTTP Basic.
    pub(super) fn authorization(&self) -> String {
        format!("Basic {}", STANDARD.encode(format!("{}:{}", self.user, self.password)))
    }
}

/// The password is nobody's business.
impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.user, self.authority())
    }
}

/// %XX taken apart; `None` for what is not UTF-8 then.
fn unescaped(text: &str) -> Option<String> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((octet, behind)) = rest.split_first() {
        rest = behind;
        if *octet == b'%' {
            let (digits, behind) = rest.split_at_checked(2)?;
            let digits = std::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?;
            octets.push(u8::from_str_radix(digits, 16).ok()?);
            rest = behind;
        } else {
            octets.push(*octet);
        }
    }
    String::from_utf8(octets).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_an_uri() {
        let shown = |uri: &str| {
            Remote::parse(&format!("{PLAIN}{uri}"))
                .map(|remote| (remote.authority(), remote.prefix.clone(), remote.user.clone(), remote.password.clone()))
        };
        let of = |a: &str, b: &str, c: &str, d: &str| (a.to_owned(), b.to_owned(), c.to_owned(), d.to_owned());
        assert_eq!(shown("h").unwrap(), of("h:15672", "", "guest", "guest"));
        assert_eq!(shown("u:p%40%2f@h:80/x/y/").unwrap(), of("h:80", "/x/y", "u", "p@/"));
        assert_eq!(shown("u:a@b@[::1]:81").unwrap(), of("[::1]:81", "", "u", "a@b"));
        assert_eq!(shown("[::1]/").unwrap(), of("[::1]:15672", "", "guest", "guest"));
        for wrong in ["", "h:x", "u:%zz@h", "[::1", "u:p@"] {
            assert_eq!(shown(wrong).unwrap_err().code, 64, "{wrong}");
        }
        for wrong in ["", "h", "ftp://h"] {
            assert_eq!(Remote::parse(wrong).unwrap_err().code, 64, "{wrong}");
        }
        let over_tls = Remote::parse(&format!("{TLS}h")).unwrap();
        assert_eq!((over_tls.tls, over_tls.port), (true, 15671));
        let debug = format!("{:?}", Remote::parse(&format!("{PLAIN}u:secret@h")).unwrap());
        assert!(!debug.contains("secret"), "{debug}");
    }
}
