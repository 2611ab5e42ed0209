//! Writers that replace one root at a time, on a way that loses requests and answers.

use std::collections::HashSet;
use std::sync::Arc;

use mithril_engine::id::NodeId;
use mithril_engine::object::ObjectStore;
use mithril_engine::object::faults::{Faults, Faulty};
use mithril_engine::object::memory::MemoryStore;
use mithril_engine::volume::root::{CommitId, Published, Root, RootError, Swap, read, replace};

/// Commits until it has won so many; returns those of which it heard that they took place.
async fn commit(remote: Arc<dyn ObjectStore>, seed: u64, wins: usize) -> Vec<CommitId> {
    let mut won = Vec::new();
    let mut base: Option<Published> = None;
    let mut attempt = 0_u64;
    while won.len() < wins {
        attempt += 1;
        assert!(attempt < 10_000, "somebody has to win");
        tokio::task::yield_now().await;
        if base.is_none() {
            base = read(remote.as_ref()).await.unwrap_or_default();
        }
        let tree = NodeId::of(&[seed.to_le_bytes(), attempt.to_le_bytes()].concat());
        let new = match &base {
            Some(base) => base.root.next(tree).unwrap(),
            None => Root::first(tree).unwrap(),
        };
        // Not known: the same commit again, until it is.
        let swap = loop {
            match replace(remote.as_ref(), base.as_ref(), &new).await {
                Ok(swap) => break swap,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        match swap {
            Swap::Won(there) => {
                won.push(new.commit);
                base = Some(there);
            }
            Swap::Lost(there) => base = there,
        }
    }
    won
}

#[test]
fn every_commit_that_was_acknowledged_took_place_once() {
    let rounds: u64 = std::env::var("MITHRIL_TORTURE").map_or(1, |factor| factor.parse().unwrap()) * 60;
    for seed in 0..rounds {
        let faults = Faults {
            unreachable_before: 0.1,
            unreachable_after: 0.15,
            busy: 0.05,
            server: 0.1,
            conflict: 0.1,
            truncated: 0.05,
            flipped: 0.05,
        };
        let store = Arc::new(MemoryStore::new());
        let faulty: Arc<dyn ObjectStore> = Arc::new(Faulty::new(store.clone(), faults, seed));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (writers, wins) = (3, 12);
        let mut acknowledged = runtime.block_on(async {
            let tasks: Vec<_> =
                (0..writers).map(|writer| tokio::spawn(commit(Arc::clone(&faulty), writer, wins))).collect();
            let mut all = Vec::new();
            for task in tasks {
                all.extend(task.await.unwrap());
            }
            all
        });
        let last = runtime.block_on(read(store.as_ref())).unwrap().unwrap().root;
        // One after the other, each counted once, and none that nobody was told of.
        let history: Vec<&CommitId> = std::iter::once(&last.commit).chain(&last.history).collect();
        assert_eq!(history.len() as u64, last.sequence + 1, "seed {seed}");
        assert_eq!(history.iter().collect::<HashSet<_>>().len(), history.len(), "seed {seed}");
        assert_eq!(acknowledged.len(), history.len(), "seed {seed}");
        acknowledged.retain(|commit| !history.contains(&commit));
        assert_eq!(acknowledged, [], "seed {seed}");
    }
}

/// After more commits than a root remembers, nobody is told that they lost what may have taken place.
#[test]
fn a_commit_of_long_ago_is_not_known() {
    let store = MemoryStore::new();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let first = Root::first(NodeId::of(b"first")).unwrap();
        let Swap::Won(base) = replace(&store, None, &first).await.unwrap() else { panic!("nobody else is there") };
        let old = base.root.next(NodeId::of(b"old")).unwrap();
        let Swap::Won(mut last) = replace(&store, Some(&base), &old).await.unwrap() else { panic!("nor now") };
        for step in 0..300_u32 {
            if step == 200 {
                // Still remembered.
                assert!(matches!(replace(&store, Some(&base), &old).await, Ok(Swap::Won(_))));
            }
            let next = last.root.next(NodeId::of(&step.to_le_bytes())).unwrap();
            let Swap::Won(there) = replace(&store, Some(&last), &next).await.unwrap() else { panic!("nor now") };
            last = there;
        }
        assert!(matches!(replace(&store, Some(&base), &old).await, Err(RootError::Forgotten(commit)) if commit == old.commit));
    });
}
