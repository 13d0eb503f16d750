//! Buffers that connections borrow while they have something to read or write: an idle connection holds none.

use std::cell::RefCell;

/// Octets of a fresh buffer.
pub(super) const BUFFER_BYTES: usize = 128 * 1024;
/// A buffer that grew beyond this for large frames is not kept.
const KEPT_MAX_BYTES: usize = 512 * 1024;
/// Buffers kept per thread.
const KEPT_MAX: usize = 8;

thread_local! {
    static READ: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    static WRITE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer whose whole length may be read into.
pub(super) fn take_read() -> Vec<u8> {
    READ.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; BUFFER_BYTES])
}

/// Gives a read buffer back.
pub(super) fn give_read(buffer: Vec<u8>) {
    if buffer.len() >= BUFFER_BYTES && buffer.len() <= KEPT_MAX_BYTES {
        READ.with_borrow_mut(|kept| {
            if kept.len() < KEPT_MAX {
                kept.push(buffer);
            }
        });
    }
}

/// An empty buffer to encode into.
pub(super) fn take_write() -> Vec<u8> {
    WRITE.with_borrow_mut(Vec::pop).unwrap_or_else(|| Vec::with_capacity(BUFFER_BYTES))
}

/// Gives a write buffer back.
pub(super) fn give_write(mut buffer: Vec<u8>) {
    if buffer.capacity() > 0 && buffer.capacity() <= KEPT_MAX_BYTES {
        buffer.clear();
        WRITE.with_borrow_mut(|kept| {
            if kept.len() < KEPT_MAX {
                kept.push(buffer);
            }
        });
    }
}
