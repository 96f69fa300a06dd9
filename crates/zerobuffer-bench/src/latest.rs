//! One measurement for several figures.

use anyhow::Result;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::hash::Hash;

/// What was measured last of each kind. A figure that asks a second time gets a new measurement.
#[derive(Debug)]
pub(crate) struct Latest<K, V> {
    values: RefCell<HashMap<K, (V, HashSet<&'static str>)>>,
}

impl<K, V> Default for Latest<K, V> {
    fn default() -> Self {
        Self { values: RefCell::default() }
    }
}

impl<K: Hash + Eq, V: Copy> Latest<K, V> {
    /// The value of `key` for figure `who`.
    pub(crate) fn of(
        &self,
        who: &'static str,
        key: K,
        measure: impl FnOnce() -> Result<V>,
    ) -> Result<V> {
        if let Some((value, seen)) = self.values.borrow_mut().get_mut(&key)
            && seen.insert(who)
        {
            return Ok(*value);
        }
        let value = measure()?;
        self.values.borrow_mut().insert(key, (value, HashSet::from([who])));
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_figure_sees_a_measurement_once() {
        let (latest, mut count) = (Latest::default(), 0);
        let mut ask = |who, key: u32| {
            let measure = || {
                count += 1;
                Ok(count)
            };
            latest.of(who, key, measure).unwrap()
        };
        let seen = [ask("a", 1), ask("b", 1), ask("a", 2), ask("a", 1), ask("b", 1)];
        assert_eq!(seen, [1, 1, 2, 3, 3]);
    }
}
