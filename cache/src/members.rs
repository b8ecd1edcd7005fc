//! Which devices a cache is made of.
//!
//! # Problem
//!
//! The newest record of a key may be on any device of the cache. Opened without one of them, or with
//! one that was not there the last time, the cache would find older records and take them for the
//! newest.
//!
//! # Protocol
//!
//! Every device says which devices were used together the last time that this changed, and gives that
//! a number that grows ([`crate::void`] has the sector). At open the newest such list that names the
//! first device counts; if that one has none, the newest of all.
//!
//! | a device | then |
//! |---|---|
//! | is in the list, here, and says the same list | it is as it was |
//! | is in the list and not here, but was declared void since | nothing of it is missed |
//! | is in the list and not here | everything is cold: it may have held what is newer |
//! | is in the list and here, but says another | everything is cold: it is an old copy of itself |
//! | is not in the list | what is on it is void: it is new, of another cache, or was left out |
//!
//! Then, if anything has changed, all devices that are here say so, before anything else is written.
//! A power loss in between leaves some that say one thing and some another: the cache is cold.

use crate::void::Void;

/// Of a device.
pub(crate) type Uuid = [u8; 16];

/// Devices that were used together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Members {
    /// 0: it was never said. Later lists have higher numbers, as versions of records have.
    pub(crate) run: u64,
    pub(crate) uuids: Vec<Uuid>,
}

/// What has changed since the last time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Nothing.
    Nothing,
    /// Devices, by their places in the configuration, of which nothing counts, or none; or one that
    /// nobody misses is gone.
    Some(Vec<usize>),
    /// One is missing.
    Missing(Uuid),
    /// One is not what it was the last time.
    Behind(usize),
}

/// Compares the devices that are here, and what each of them says, with what was.
pub(crate) fn compare(here: &[Uuid], said: &[Members], void: &Void) -> Change {
    let lists = || said.iter().filter(|members| members.run > 0);
    let names_first = |members: &&Members| members.uuids.contains(&here[0]);
    let last = match said[0].run {
        0 => lists().max_by_key(|members| members.run),
        _ => lists().filter(names_first).max_by_key(|members| members.run),
    };
    let Some(last) = last else { return Change::Some(Vec::new()) };
    let is_missed = |uuid: &&Uuid| !here.contains(uuid) && !void.contains(**uuid, last.run);
    if let Some(missing) = last.uuids.iter().find(is_missed) {
        return Change::Missing(*missing);
    }
    let mut strangers = Vec::new();
    for (number, (uuid, said)) in here.iter().zip(said).enumerate() {
        match last.uuids.contains(uuid) {
            true if said != last => return Change::Behind(number),
            true => {}
            false => strangers.push(number),
        }
    }
    match strangers.is_empty() && last.uuids.len() == here.len() {
        true => Change::Nothing,
        false => Change::Some(strangers),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Uuid = [1; 16];
    const B: Uuid = [2; 16];
    const C: Uuid = [3; 16];

    fn list(run: u64, uuids: &[Uuid]) -> Members {
        Members { run, uuids: uuids.to_vec() }
    }

    #[test]
    fn what_has_changed_is_noticed() {
        let (none, ab) = (Members::default(), list(5, &[A, B]));
        let compare = |here: &[Uuid], said: &[&Members]| {
            let said: Vec<_> = said.iter().copied().cloned().collect();
            super::compare(here, &said, &Void::default())
        };
        assert_eq!(compare(&[A, B], &[&none, &none]), Change::Some(vec![]), "new");
        assert_eq!(compare(&[A, B], &[&ab, &ab]), Change::Nothing);
        assert_eq!(compare(&[B, A], &[&ab, &ab]), Change::Nothing, "in another order");
        assert_eq!(compare(&[A], &[&ab]), Change::Missing(B));
        assert_eq!(compare(&[C, A, B], &[&none, &ab, &ab]), Change::Some(vec![0]), "one more");
        let of_c = list(9, &[C]);
        assert_eq!(compare(&[A, B, C], &[&ab, &ab, &of_c]), Change::Some(vec![2]), "of another");
        let without_b = list(6, &[A]);
        assert_eq!(compare(&[A, B], &[&without_b, &ab]), Change::Some(vec![1]), "it was left out");
        assert_eq!(compare(&[B, A], &[&ab, &without_b]), Change::Behind(1), "as seen from it");
        let abc = list(7, &[A, B, C]);
        assert_eq!(compare(&[A, B, C], &[&abc, &ab, &abc]), Change::Behind(1), "an old copy");
    }

    #[test]
    fn nobody_misses_what_is_void_since() {
        let said = [list(5, &[A, B])];
        let mut void = Void::default();
        void.insert(B, 4);
        assert_eq!(compare(&[A], &said, &void), Change::Missing(B), "it was used again since");
        void.insert(B, 6);
        assert_eq!(compare(&[A], &said, &void), Change::Some(vec![]));
    }
}
