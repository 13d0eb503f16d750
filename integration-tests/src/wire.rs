//! AMQP data by hand: building arguments, tables and properties byte by byte, and reading them back.

/// Bytes under construction. Every method appends one value and returns the rest of the sentence.
#[derive(Clone, Debug, Default)]
pub struct Bytes(Vec<u8>);

impl Bytes {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// One octet; also used for packed bits.
    pub fn octet(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    /// A 16-bit integer.
    pub fn short(mut self, value: u16) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    /// A 32-bit integer.
    pub fn long(mut self, value: u32) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    /// A 64-bit integer.
    pub fn longlong(mut self, value: u64) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    /// A short string. Its length octet is the low octet of the length: lying is the caller's business.
    pub fn shortstr(mut self, value: impl AsRef<[u8]>) -> Self {
        self.0.push(value.as_ref().len() as u8);
        self.0.extend(value.as_ref());
        self
    }

    /// A long string.
    pub fn longstr(self, value: impl AsRef<[u8]>) -> Self {
        self.long(value.as_ref().len() as u32).raw(value)
    }

    /// A table whose entries are already encoded.
    pub fn table(self, entries: impl AsRef<[u8]>) -> Self {
        self.longstr(entries)
    }

    /// The name and type tag of a table entry; its value follows.
    pub fn field(self, name: &str, tag: u8) -> Self {
        self.shortstr(name).octet(tag)
    }

    /// Bytes as they are.
    pub fn raw(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.0.extend(bytes.as_ref());
        self
    }

    /// The finished bytes.
    pub fn done(self) -> Vec<u8> {
        self.0
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Reads arguments back. Panics when they end early: the broker sent them.
#[derive(Clone, Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next `count` bytes.
    #[track_caller]
    pub fn take(&mut self, count: usize) -> &'a [u8] {
        assert!(count <= self.0.len(), "{count} bytes wanted, {:?} left", self.0);
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }

    /// One octet.
    #[track_caller]
    pub fn octet(&mut self) -> u8 {
        self.take(1)[0]
    }

    /// A 16-bit integer.
    #[track_caller]
    pub fn short(&mut self) -> u16 {
        self.number(2) as u16
    }

    /// A 32-bit integer.
    #[track_caller]
    pub fn long(&mut self) -> u32 {
        self.number(4) as u32
    }

    /// A 64-bit integer.
    #[track_caller]
    pub fn longlong(&mut self) -> u64 {
        self.number(8)
    }

    #[track_caller]
    fn number(&mut self, octets: usize) -> u64 {
        self.take(octets).iter().fold(0, |value, octet| value << 8 | u64::from(*octet))
    }

    /// A short string.
    #[track_caller]
    pub fn shortstr(&mut self) -> String {
        let length = usize::from(self.octet());
        String::from_utf8(self.take(length).to_vec()).expect("a short string must be UTF-8")
    }

    /// A long string or the entries of a table.
    #[track_caller]
    pub fn longstr(&mut self) -> &'a [u8] {
        let length = self.long() as usize;
        self.take(length)
    }

    /// What has not been read.
    pub fn rest(&self) -> &'a [u8] {
        self.0
    }
}

/// The whole bytes of one frame.
pub fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    Bytes::new().octet(kind).short(channel).longstr(payload).octet(FRAME_END).done()
}

/// The whole bytes of one method frame.
pub fn method(channel: u16, id: (u16, u16), arguments: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = Bytes::new().short(id.0).short(id.1).raw(arguments).done();
    frame(METHOD, channel, &payload)
}

/// The payload of a content header of class basic. `properties` are the flags and the values.
pub fn header(body_size: u64, properties: &[u8]) -> Vec<u8> {
    Bytes::new().short(60).short(0).longlong(body_size).raw(properties).done()
}

/// `count` tables inside one another, encoded without recursion; what stands in a table field, without its length.
pub fn nested_tables(count: usize) -> Vec<u8> {
    // Each level is a name of one octet, the tag F and the length of what is inside.
    const LEVEL: usize = 2 + 1 + 4;
    let mut bytes = Vec::with_capacity(count * LEVEL);
    for level in 0..count {
        bytes.extend([1, b'n', b'F']);
        let inside = (count - level - 1) * LEVEL;
        bytes.extend((inside as u32).to_be_bytes());
    }
    bytes
}

/// Flags of a header without any property.
pub const NO_PROPERTIES: &[u8] = &[0, 0];
/// Flags and value of delivery-mode 2 alone.
pub const PERSISTENT: &[u8] = &[0x10, 0, 2];

/// Frame type of methods.
pub const METHOD: u8 = 1;
/// Frame type of content headers.
pub const HEADER: u8 = 2;
/// Frame type of content bodies.
pub const BODY: u8 = 3;
/// Frame type of heartbeats.
pub const HEARTBEAT: u8 = 8;
/// The octet every frame ends with.
pub const FRAME_END: u8 = 0xCE;
