//! What the attribute of a packed file says.

use std::time::Duration;

use mithril_engine::id::{ManifestId, StoreId};
use mithril_fs::stub::Authority;

use crate::case::Case;
use crate::guarded::Edge;
use crate::random::Random;
use crate::target::{Checked, Ground, Outcome, Target, as_it_is};

pub(crate) fn targets() -> Vec<Target> {
    vec![Target {
        name: "stub",
        what: "Authority::decode, the attribute of a stub",
        seeds,
        tokens: &[],
        repair: as_it_is,
        heap_limit: |_| 4096,
        time_limit: Duration::from_millis(100),
        check: stub,
    }]
}

fn stub(case: &Case, ground: &mut Ground) -> Checked {
    let bytes = ground.input.hold(&case.input, Edge::of(case.choice));
    let Ok(authority) = Authority::decode(bytes) else { return Ok(Outcome::Refused) };
    if authority.encode()[..] != *bytes {
        return Err("an attribute has two spellings".to_owned());
    }
    let Authority { store, size, inode, .. } = authority;
    let other = StoreId::from_low_bits(store.get() ^ 1);
    let checks = [
        authority.check(store, inode, size).is_ok(),
        authority.check(store, inode, 0).is_ok(),
        authority.check(other, inode, size).is_err(),
        authority.check(store, inode ^ 1, size).is_err(),
        authority.check(store, inode, size ^ 1).is_err() || size == 1,
    ];
    if checks.contains(&false) {
        return Err(format!("it is checked wrongly: {checks:?}"));
    }
    Ok(Outcome::Accepted)
}

fn seeds() -> Vec<Case> {
    let mut random = Random::new(1, "stubs");
    let authority = |random: &mut Random| Authority {
        store: StoreId::from_low_bits(random.next()),
        manifest: ManifestId::of(&random.bytes(3)),
        size: random.next() >> random.below(64),
        mtime_ns: random.next().cast_signed(),
        inode: random.next() >> random.below(64),
    };
    (0..8).map(|_| Case::of(authority(&mut random).encode().to_vec())).collect()
}
