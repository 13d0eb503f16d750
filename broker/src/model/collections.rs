//! Hash maps for names that clients choose: hashed with a key of this process, so that nobody
//! outside can prepare names that all fall into one bucket.

/// Hash map with a keyed hash.
pub type Map<K, V> = hashbrown::HashMap<K, V, foldhash::quality::RandomState>;

/// Hash set with a keyed hash.
pub type Set<K> = hashbrown::HashSet<K, foldhash::quality::RandomState>;
