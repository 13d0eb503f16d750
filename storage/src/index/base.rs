//! From where in the log an index goes on.

use crate::bytes_cursor::Cursor;

use super::Position;

const VERSION: u64 = 1;

/// The state of the log that sled, or a snapshot, stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Base {
    /// Everything up to here is in it.
    pub(crate) lsn: u64,
    /// Replaying starts here.
    pub(crate) resume: Position,
    /// The opening of the store that wrote it.
    pub(crate) epoch: u64,
    /// Key of the directory it belongs to.
    pub(crate) key: [u8; 16],
}

impl Base {
    /// Bytes of [`Base::put`].
    pub(crate) const LEN: usize = 64;

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        let Position { segment, offset, link } = self.resume;
        for word in [VERSION, self.lsn, segment, offset, u64::from(link), self.epoch] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&self.key);
    }

    pub(crate) fn take(bytes: &[u8]) -> Option<Self> {
        let mut cursor = Cursor::new(bytes);
        if cursor.u64()? != VERSION {
            return None;
        }
        let lsn = cursor.u64()?;
        let (segment, offset) = (cursor.u64()?, cursor.u64()?);
        let resume = Position { segment, offset, link: u32::try_from(cursor.u64()?).ok()? };
        let epoch = cursor.u64()?;
        let key = *cursor.rest().first_chunk()?;
        Some(Self { lsn, resume, epoch, key })
    }
}
