//! What the fakes remember of the messages they have had: fingerprints of ids, never the ids.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry, hash_map::RandomState},
    hash::{BuildHasher, BuildHasherDefault, Hasher},
    time::Duration,
};

/// 64 bits that stand for an id. Among ten million ids two share one with a chance of about three in a million. As
/// bytes, so that a map of them pads nothing.
pub(super) type Fingerprint = [u8; 8];

/// A map from ids to `V`, in at most 35 bytes an id for a `V` of four bytes.
pub(super) struct IdMap<V> {
    secret: RandomState,
    map: HashMap<Fingerprint, V, BuildHasherDefault<AsItIs>>,
}

impl<V> Default for IdMap<V> {
    fn default() -> Self {
        Self { secret: RandomState::new(), map: HashMap::default() }
    }
}

impl<V: Copy> IdMap<V> {
    pub(super) fn get(&self, id: &str) -> Option<V> {
        self.map.get(&self.fingerprint(id)).copied()
    }

    /// Puts `value` in the place of what is known of `id`, and returns that.
    pub(super) fn replace(&mut self, id: &str, value: V) -> Option<V> {
        self.map.insert(self.fingerprint(id), value)
    }

    /// Remembers `value` unless `id` is known; says whether it was new.
    pub(super) fn insert_new(&mut self, id: &str, value: V) -> bool {
        match self.map.entry(self.fingerprint(id)) {
            Entry::Vacant(place) => {
                place.insert(value);
                true
            }
            Entry::Occupied(_) => false,
        }
    }

    fn fingerprint(&self, id: &str) -> Fingerprint {
        self.secret.hash_one(id).to_ne_bytes()
    }
}

/// Ids that are forgotten a fixed time after they were first seen.
pub(super) struct ExpiringIds {
    ttl: Duration,
    /// Each id's expiry, by the process's monotonic clock in milliseconds.
    ids: IdMap<[u8; 8]>,
    /// The same in the order of expiry.
    order: VecDeque<(u64, Fingerprint)>,
}

impl ExpiringIds {
    pub(super) fn new(ttl: Duration) -> Self {
        Self { ttl, ids: IdMap::default(), order: VecDeque::new() }
    }

    /// Remembers `id` unless it is known still; says whether it was new. A repeat does not make it known for longer.
    pub(super) fn insert_new(&mut self, id: &str, now: Duration) -> bool {
        let now_ms = whole_ms(now);
        while let Some((expiry, fingerprint)) = self.order.front()
            && *expiry <= now_ms
        {
            self.ids.map.remove(fingerprint);
            self.order.pop_front();
        }
        let expiry = now_ms.saturating_add(whole_ms(self.ttl));
        let new = self.ids.insert_new(id, expiry.to_ne_bytes());
        if new {
            self.order.push_back((expiry, self.ids.fingerprint(id)));
        }
        new
    }
}

fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The hash of a fingerprint is the fingerprint: it is one already.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(0, |hash, byte| hash << 8 | u64::from(*byte));
    }

    /// The length of the array, which is always the same.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_new_once() {
        let mut ids = IdMap::default();
        for number in 0..50_000_u32 {
            assert!(ids.insert_new(&number.to_string(), number));
        }
        for number in 0..50_000_u32 {
            assert!(!ids.insert_new(&number.to_string(), 0));
            assert_eq!(ids.get(&number.to_string()), Some(number));
        }
        assert_eq!(ids.get("50000"), None);
    }

    #[test]
    fn a_million_ids_stay_small() {
        let mut ids = IdMap::default();
        for number in 0..1_000_000_u32 {
            ids.insert_new(&number.to_string(), [0_u8; 4]);
        }
        // Two to the 21st places of 12 bytes and one byte of bookkeeping each.
        assert!(ids.map.capacity() < 1 << 21);
        assert_eq!(size_of::<(Fingerprint, [u8; 4])>(), 12);
    }

    #[test]
    fn an_id_is_forgotten_when_its_time_is_over_and_a_repeat_does_not_lengthen_it() {
        let at = Duration::from_secs;
        let mut ids = ExpiringIds::new(at(900));
        assert!(ids.insert_new("a", at(0)));
        assert!(!ids.insert_new("a", at(899)));
        assert!(ids.insert_new("a", at(900)));
        assert!(!ids.insert_new("a", at(1_799)));
        assert!(ids.insert_new("b", at(1_800)));
        assert!(ids.insert_new("a", at(1_800)));
        assert_eq!(ids.order.len(), 2);
    }
}
