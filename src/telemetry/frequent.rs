//! What comes most often among more than can be counted one by one: the Space-Saving algorithm (Metwally, Agrawal and El
//! Abbadi, 2005). As large as its bound, whatever comes. Who counts rooms or addresses holds one, behind a lock of its own.

/// Keys that come most often, at most so many at a time.
#[derive(Debug)]
pub struct Frequent<K> {
    keys_max: usize,
    counts: Vec<Count<K>>,
    all: u64,
}

/// A key that is counted.
#[derive(Debug)]
struct Count<K> {
    key: K,
    times: u64,
    /// What of these may have been others', counted before it in its place.
    others: u64,
}

/// What was counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted<K> {
    /// All that came.
    pub all: u64,
    /// The keys with how often each of them came at least; the first one most often.
    pub keys: Vec<(K, u64)>,
}

impl<K: Clone + Eq> Frequent<K> {
    /// Counts so many keys at a time, at least one. A key that makes more than this part of all that comes is always among
    /// them.
    #[must_use]
    pub const fn of(keys_max: usize) -> Self {
        Self { keys_max, counts: Vec::new(), all: 0 }
    }

    /// A key has come so many times. Looks at each of those that are counted: a bounded number.
    pub fn add(&mut self, key: &K, times: u64) {
        self.all = self.all.saturating_add(times);
        if let Some(known) = self.counts.iter_mut().find(|count| count.key == *key) {
            known.times = known.times.saturating_add(times);
        } else if self.counts.len() < self.keys_max {
            self.counts.push(Count { key: key.clone(), times, others: 0 });
        } else if let Some(least) = self.counts.iter_mut().min_by_key(|count| count.times) {
            // It takes the place of the one with least, and its count: so none that has much is ever forgotten.
            let others = least.times;
            *least = Count { key: key.clone(), times: others.saturating_add(times), others };
        }
    }

    /// Takes all out.
    pub fn take(&mut self) -> Counted<K> {
        let counts = std::mem::take(&mut self.counts).into_iter();
        let mut keys: Vec<(K, u64)> = counts.map(|count| (count.key, count.times - count.others)).collect();
        keys.sort_by_key(|(_, times)| std::cmp::Reverse(*times));
        Counted { all: std::mem::take(&mut self.all), keys }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_most_often_is_found_among_a_hundred_thousand_and_no_more_are_held() {
        let mut frequent = Frequent::of(64);
        for turn in 0..100_000_u32 {
            frequent.add(&(turn + 10), 1);
            assert!(frequent.counts.len() <= 64);
            // One in ten, and one in a hundred of the others.
            if turn % 9 == 0 {
                frequent.add(&1, 1);
            }
            if turn % 100 == 0 {
                frequent.add(&2, 5);
            }
        }
        let Counted { all, keys } = frequent.take();
        assert_eq!((all, keys.len()), (100_000 + 11_112 + 5_000, 64));
        let [(first, most), (second, more), (_, least), ..] = keys.as_slice() else { panic!("{keys:?}") };
        assert_eq!((*first, *second), (1, 2));
        // What it came before it was held for good is not said: never too much.
        assert!((11_000..=11_112).contains(most) && (4_000..=5_000).contains(more), "{most} {more}");
        assert!(*least <= 2, "whoever comes once is not said to have come more often: {least}");
        assert_eq!(frequent.take(), Counted { all: 0, keys: Vec::new() });
    }

    #[test]
    fn what_comes_little_by_little_is_not_pushed_out_by_what_comes_once_with_more() {
        let mut frequent = Frequent::of(16);
        for turn in 0..1_000 {
            frequent.add(&(turn + 10), 4);
            frequent.add(&1, 1);
        }
        let Counted { all, keys } = frequent.take();
        let (_, times) = keys.iter().find(|(key, _)| *key == 1).expect("a fifth of all is its");
        // At most what each counted key may have of all is not said.
        assert!((1_000 - all / 16..=1_000).contains(times), "{times} of {all}");
    }

    #[test]
    fn a_few_are_counted_exactly() {
        let mut frequent = Frequent::of(2);
        [("ann", 3), ("bea", 5), ("ann", 4)].iter().for_each(|(key, times)| frequent.add(key, *times));
        assert_eq!(frequent.take(), Counted { all: 12, keys: vec![("ann", 7), ("bea", 5)] });
    }
}
