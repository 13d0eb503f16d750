//! The form that a browser uploads a file with (RFC 7578), as far as an upload of definitions needs it.

/// More than a boundary and the line break behind it can have.
const BOUNDARY_MAX: usize = 80;

/// What the field `file` holds; `None` when the body is no form, or has none. A form begins with its boundary, which JSON cannot
/// begin with.
pub(super) fn file(body: &[u8]) -> Option<&[u8]> {
    if !body.starts_with(b"--") {
        return None;
    }
    let boundary = &body[..find(&body[..body.len().min(BOUNDARY_MAX)], b"\r\n")?];
    let delimiter = [b"\r\n", boundary].concat();
    let mut rest = &body[boundary.len()..];
    loop {
        let part = rest.strip_prefix(b"\r\n")?;
        let head = find(part, b"\r\n\r\n")?;
        let content = &part[head + 4..];
        let end = find(content, &delimiter)?;
        if is_file(&part[..head]) {
            return Some(&content[..end]);
        }
        rest = &content[end + delimiter.len()..];
    }
}

/// Whether the head of a part calls it `file`.
fn is_file(head: &[u8]) -> bool {
    let head = String::from_utf8_lossy(head);
    let disposition = head.lines().find(|line| line.to_ascii_lowercase().starts_with("content-disposition:"));
    disposition.is_some_and(|line| line.split(';').any(|field| field.trim() == "name=\"file\""))
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_found_between_other_fields() {
        let form = b"--B\r\nContent-Disposition: form-data; name=\"redirect\"\r\n\r\n../#/import\r\n--B\r\n\
                     content-disposition: form-data; name=\"file\"; filename=\"d.json\"\r\nContent-Type: x/y\r\n\r\n\
                     {\"a\":\r\n1}\r\n--B--\r\n";
        assert_eq!(file(form), Some(b"{\"a\":\r\n1}".as_slice()));
        for end in 0..form.len() - 6 {
            assert_eq!(file(&form[..end]), None, "{end}");
        }
        assert_eq!(file(b"{}"), None);
        assert_eq!(file(b"--B\r\nContent-Disposition: form-data; name=\"other\"\r\n\r\n{}\r\n--B--\r\n"), None);
    }
}
