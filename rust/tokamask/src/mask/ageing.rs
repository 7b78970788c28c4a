//! Maps that forget what was not asked for lately: two generations. Where the younger one has grown to half of
//! what is allowed, it becomes the older one, and what nobody asked for since the last time is gone. What is
//! found in the older one moves to the younger.
//!
//! Forgetting everything at once, as before, makes the next few hundred masks first visits again; a list by
//! last use costs two more writes for every row that is found. Measured in `docs/explanation/grammar.md`.

use std::hash::Hash;
use std::sync::Arc;

use rustc_hash::FxHashMap;

/// Bytes that a value takes.
pub trait Weigh {
    /// The bytes, about.
    fn weight(&self) -> usize;
}

impl<T: Weigh> Weigh for Arc<T> {
    fn weight(&self) -> usize {
        (**self).weight()
    }
}

impl Weigh for Arc<[u64]> {
    fn weight(&self) -> usize {
        self.len() * 8 + 16
    }
}

/// A map of two generations.
pub struct Ageing<K, V> {
    young: FxHashMap<K, V>,
    old: FxHashMap<K, V>,
    young_bytes: usize,
    old_bytes: usize,
}

impl<K, V> Default for Ageing<K, V> {
    fn default() -> Self {
        Self { young: FxHashMap::default(), old: FxHashMap::default(), young_bytes: 0, old_bytes: 0 }
    }
}

impl<K: Hash + Eq, V: Clone + Weigh> Ageing<K, V> {
    const ENTRY: usize = 2 * size_of::<(K, V)>();

    /// The value of a key.
    #[inline]
    pub fn get(&mut self, key: &K) -> Option<V> {
        if let Some(value) = self.young.get(key) {
            return Some(value.clone());
        }
        if self.old.is_empty() {
            return None;
        }
        let (key, value) = self.old.remove_entry(key)?;
        self.old_bytes = self.old_bytes.saturating_sub(value.weight() + Self::ENTRY);
        self.insert(key, value.clone());
        Some(value)
    }

    /// Keeps a value.
    pub fn insert(&mut self, key: K, value: V) {
        self.young_bytes += value.weight() + Self::ENTRY;
        self.young.insert(key, value);
    }

    /// Forgets the older generation; the younger one takes its place.
    pub fn age(&mut self) {
        self.old = std::mem::take(&mut self.young);
        self.old_bytes = std::mem::take(&mut self.young_bytes);
    }

    /// Weighs the younger generation again, where values grow.
    pub fn weigh(&mut self) {
        self.young_bytes = self.young.values().map(|v| v.weight() + Self::ENTRY).sum();
    }

    /// Values of the younger generation.
    pub fn len(&self) -> usize {
        self.young.len()
    }

    /// Bytes of the younger generation.
    pub fn young_bytes(&self) -> usize {
        self.young_bytes
    }

    /// Bytes of both.
    pub fn bytes(&self) -> usize {
        self.young_bytes + self.old_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Weigh for u64 {
        fn weight(&self) -> usize {
            8
        }
    }

    #[test]
    fn what_is_asked_for_stays() {
        let mut map = Ageing::<u32, u64>::default();
        (0..10).for_each(|i| map.insert(i, i.into()));
        let full = map.bytes();
        map.age();
        assert_eq!((map.young_bytes(), map.bytes()), (0, full));
        assert_eq!(map.get(&3), Some(3));
        assert_eq!(map.bytes(), full, "moved, not copied");
        map.age();
        assert_eq!((map.get(&3), map.get(&4)), (Some(3), None));
        map.age();
        map.age();
        assert_eq!((map.get(&3), map.bytes()), (None, 0));
    }
}
