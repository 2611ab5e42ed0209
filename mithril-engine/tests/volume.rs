//! Trees of volumes against plain maps, and what becomes of changes that two machines make at a time.

use std::collections::{BTreeMap, BTreeSet};

use mithril_engine::id::{ManifestId, NodeId};
use mithril_engine::volume::MemoryNodes;
use mithril_engine::volume::draft::{Draft, Seen};
use mithril_engine::volume::entry::{Attributes, Content, Entry, Name};
use mithril_engine::volume::rebase::{Conflict, Operation, Outcome, Path, rebase};
use proptest::prelude::*;

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

fn path(text: &str) -> Path {
    text.split('/').filter(|part| !part.is_empty()).map(name).collect()
}

/// A file that no other is like.
fn file(number: u64) -> Entry {
    let manifest = Some(ManifestId::of(&number.to_le_bytes()));
    Entry { content: Content::File { len: number + 1, manifest }, attributes: Attributes::default() }
}

fn leaves(draft: &mut Draft<'_>) -> BTreeMap<Path, Entry> {
    let mut found = BTreeMap::new();
    let mut directories: Vec<Path> = vec![Vec::new()];
    while let Some(directory) = directories.pop() {
        for (name, seen) in draft.list(&directory).unwrap().unwrap() {
            let below: Path = directory.iter().cloned().chain([name]).collect();
            match seen {
                Seen::Directory(_) => directories.push(below),
                Seen::Leaf(entry) => drop(found.insert(below, entry)),
            }
        }
    }
    found
}

fn store(nodes: &MemoryNodes, draft: Draft<'_>) -> NodeId {
    let (root, new) = draft.store();
    nodes.extend(new);
    root
}

/// What somebody tries: many of these do not fit, and are left out.
fn operations(seed: u64) -> impl Strategy<Value = Vec<Operation>> {
    let paths = prop::sample::select(vec![
        "a", "b", "d", "e", "d/a", "d/b", "d/f", "e/a", "d/f/a", "d/f/b", "e/g", "e/g/a",
    ]);
    let one = (0..8_u8, paths.clone(), paths).prop_map(|(kind, one, other)| (kind, path(one), path(other)));
    prop::collection::vec(one, 0..14).prop_map(move |tried| {
        let of = |(number, (kind, path, to)): (usize, (u8, Path, Path))| match kind {
            0..=2 => Operation::Put { path, entry: file(seed + number as u64) },
            3 => Operation::MakeDirectory {
                path,
                attributes: Attributes { permissions: 0o700, ..Attributes::default() },
            },
            4 | 5 => Operation::Remove { path },
            _ => Operation::Rename { from: path, to },
        };
        tried.into_iter().enumerate().map(of).collect()
    })
}

/// Those that fit, one after the other, and the tree that comes of them.
fn fitting(nodes: &MemoryNodes, base: Option<NodeId>, tried: Vec<Operation>) -> (Vec<Operation>, NodeId) {
    let mut draft = Draft::new(nodes, base);
    let fitting = tried.into_iter().filter(|operation| operation.apply(&mut draft).is_ok()).collect();
    (fitting, store(nodes, draft))
}

fn base(nodes: &MemoryNodes) -> NodeId {
    let mut draft = Draft::new(nodes, None);
    for directory in ["d", "e", "d/f"] {
        draft.make_directory(&path(directory), Attributes::default()).unwrap();
    }
    for (number, at) in ["a", "d/a", "d/b", "d/f/a", "e/a"].into_iter().enumerate() {
        draft.put(&path(at), file(number as u64)).unwrap();
    }
    store(nodes, draft)
}

#[test]
fn changes_of_different_paths_are_all_there() {
    let nodes = MemoryNodes::new();
    let base = base(&nodes);
    let mine = [
        Operation::Put { path: path("d/new"), entry: file(100) },
        Operation::Rename { from: path("d"), to: path("moved") },
        Operation::Remove { path: path("a") },
    ];
    let theirs = [
        Operation::Put { path: path("d/f/theirs"), entry: file(200) },
        Operation::Remove { path: path("e/a") },
    ];
    let (_, theirs) = fitting(&nodes, Some(base), theirs.to_vec());
    let (mut draft, conflicts) = rebase(&nodes, Some(base), Some(theirs), &mine).unwrap();
    assert_eq!(conflicts, []);
    let there: Vec<String> = leaves(&mut draft)
        .keys()
        .map(|path| path.iter().map(Name::to_string).collect::<Vec<_>>().join("/"))
        .collect();
    assert_eq!(there, ["moved/a", "moved/b", "moved/f/a", "moved/f/theirs", "moved/new"]);
}

#[test]
fn who_comes_last_wins_and_what_is_lost_is_named() {
    let nodes = MemoryNodes::new();
    let base = base(&nodes);
    let theirs = vec![
        Operation::Put { path: path("a"), entry: file(200) },
        Operation::Put { path: path("d/a"), entry: file(201) },
        Operation::Remove { path: path("e/a") },
        Operation::Remove { path: path("e") },
    ];
    let (_, theirs) = fitting(&nodes, Some(base), theirs);
    let mine = [
        Operation::Put { path: path("a"), entry: file(100) },
        Operation::Remove { path: path("d/a") },
        Operation::Rename { from: path("e"), to: path("kept") },
    ];
    let (mut draft, conflicts) = rebase(&nodes, Some(base), Some(theirs), &mine).unwrap();
    assert_eq!(
        conflicts,
        [
            Conflict { path: path("a"), outcome: Outcome::Replaced(Seen::Leaf(file(200))) },
            Conflict { path: path("d/a"), outcome: Outcome::Kept },
            Conflict { path: path("kept"), outcome: Outcome::Restored },
        ]
    );
    assert!(conflicts[0].to_string().contains("snapshot"));
    let there = leaves(&mut draft);
    assert_eq!(there[&path("a")], file(100));
    assert_eq!(there[&path("d/a")], file(201));
    assert_eq!(there[&path("kept/a")], file(4));
}

#[test]
fn a_file_over_a_directory_that_others_filled_names_all_that_is_lost() {
    let nodes = MemoryNodes::new();
    let base = base(&nodes);
    let theirs = vec![
        Operation::Put { path: path("d/f/x"), entry: file(200) },
        Operation::Put { path: path("a"), entry: file(201) },
    ];
    let (_, theirs) = fitting(&nodes, Some(base), theirs);
    let mine = [
        Operation::Remove { path: path("d/f/a") },
        Operation::Remove { path: path("d/f") },
        Operation::Put { path: path("d/f"), entry: file(100) },
        Operation::Rename { from: path("a"), to: path("a.1") },
    ];
    let (mut draft, conflicts) = rebase(&nodes, Some(base), Some(theirs), &mine).unwrap();
    let replaced = Conflict { path: path("d/f/x"), outcome: Outcome::Replaced(Seen::Leaf(file(200))) };
    assert!(conflicts.contains(&replaced), "{conflicts:?}");
    let followed = Conflict { path: path("a.1"), outcome: Outcome::Followed(file(0)) };
    assert!(conflicts.contains(&followed), "{conflicts:?}");
    let there = leaves(&mut draft);
    assert_eq!((&there[&path("d/f")], &there[&path("a.1")]), (&file(100), &file(201)));
}

#[test]
fn what_cannot_be_read_again_is_not_put() {
    let nodes = MemoryNodes::new();
    let mut draft = Draft::new(&nodes, None);
    let with = |change: fn(&mut Entry)| {
        let mut entry = file(1);
        change(&mut entry);
        entry
    };
    for wrong in [
        with(|entry| entry.attributes.permissions = 0o10000),
        with(|entry| entry.attributes.extended = vec![(b"a".into(), b"".into()), (b"a".into(), b"1".into())]),
        with(|entry| entry.attributes.extended = vec![(vec![b'a'; 256], b"".into())]),
        with(|entry| entry.attributes.extended = vec![(b"a".into(), vec![0; (64 << 10) + 1])]),
        with(|entry| entry.content = Content::Symlink(vec![b'a'; 4096])),
        with(|entry| entry.content = Content::File { len: 5, manifest: None }),
    ] {
        assert!(draft.put(&path("a"), wrong.clone()).is_err(), "{wrong:?}");
    }
    // As the system lists them, in no order.
    let two = with(|entry| {
        entry.attributes.extended = vec![(b"b".into(), b"2".into()), (b"a".into(), b"1".into())];
    });
    draft.put(&path("a"), two).unwrap();
    let root = store(&nodes, draft);
    let there = leaves(&mut Draft::new(&nodes, Some(root)));
    assert_eq!(there[&path("a")].attributes.extended[0], (b"a".to_vec(), b"1".to_vec()));
}

#[test]
fn a_large_directory_is_changed_page_by_page() {
    let nodes = MemoryNodes::new();
    let mut draft = Draft::new(&nodes, None);
    for number in 0..20_000_u64 {
        draft.put(&[name(&format!("{number:x}"))], file(number)).unwrap();
    }
    let root = store(&nodes, draft);
    let mut draft = Draft::new(&nodes, Some(root));
    draft.put(&path("abc"), file(77)).unwrap();
    draft.remove(&path("1000")).unwrap();
    let (changed, new) = draft.store();
    assert!(new.len() <= 6, "{} new nodes", new.len());
    assert!(new.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() < 400_000);
    nodes.extend(new);
    let mut there = leaves(&mut Draft::new(&nodes, Some(changed)));
    assert_eq!((there.len(), &there[&path("abc")]), (19_999, &file(77)));
    // The same names and entries are the same tree, in whatever order they came.
    let mut again = Draft::new(&nodes, None);
    while let Some((path, entry)) = there.pop_last() {
        again.put(&path, entry).unwrap();
    }
    assert_eq!(store(&nodes, again), changed);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_tree_is_a_map_of_paths(tried in operations(1000)) {
        let nodes = MemoryNodes::new();
        let root = base(&nodes);
        // Each operation on a tree that is stored and read again, beside all on one draft.
        let mut step = Some(root);
        let mut draft = Draft::new(&nodes, step);
        for operation in tried {
            let mut single = Draft::new(&nodes, step);
            let before = leaves(&mut single);
            let fits = operation.apply(&mut single).is_ok();
            prop_assert_eq!(operation.apply(&mut draft).is_ok(), fits);
            let after = leaves(&mut single);
            if !fits {
                prop_assert_eq!(&after, &before);
            } else {
                match &operation {
                    Operation::Put { path, entry } => prop_assert_eq!(after.get(path), Some(entry)),
                    Operation::Remove { path } => prop_assert!(!after.contains_key(path)),
                    Operation::Rename { from, to } => {
                        let moved: BTreeMap<Path, Entry> = before.iter().map(|(at, entry)| {
                            let rest = at.strip_prefix(&from[..]).map(|rest| [&to[..], rest].concat());
                            (rest.unwrap_or_else(|| at.clone()), entry.clone())
                        }).collect();
                        let replaced = before.get(to).filter(|_| from != to);
                        let kept = after.clone();
                        prop_assert_eq!(kept.len() + usize::from(replaced.is_some()), before.len());
                        for (at, entry) in &kept {
                            if at != to { prop_assert_eq!(moved.get(at), Some(entry)); }
                            if at == to && before.contains_key(from) { prop_assert_eq!(Some(entry), before.get(from)); }
                        }
                    }
                    Operation::MakeDirectory { .. } => prop_assert_eq!(&after, &before),
                }
            }
            step = Some(store(&nodes, single));
        }
        prop_assert_eq!(Some(store(&nodes, draft)), step);
    }

    /// Whatever two machines do: nothing that is new is lost without being named, and nothing is removed that its remover
    /// did not know.
    #[test]
    fn two_machines_lose_nothing_unsaid(mine in operations(1000), theirs in operations(2000)) {
        let nodes = MemoryNodes::new();
        let root = base(&nodes);
        let (mine, alone) = fitting(&nodes, Some(root), mine);
        let (_, theirs) = fitting(&nodes, Some(root), theirs);
        // Nobody else: it is what was made.
        let (draft, conflicts) = rebase(&nodes, Some(root), Some(root), &mine).unwrap();
        prop_assert!(conflicts.is_empty());
        prop_assert_eq!(store(&nodes, draft), alone);

        let (mut draft, conflicts) = rebase(&nodes, Some(root), Some(theirs), &mine).unwrap();
        let result = leaves(&mut draft);
        let contents = |root| -> BTreeSet<ManifestId> {
            let manifest = |entry: &Entry| match entry.content { Content::File { manifest, .. } => manifest, _ => None };
            leaves(&mut Draft::new(&nodes, Some(root))).values().filter_map(manifest).collect()
        };
        let result_root = store(&nodes, draft);
        let there = contents(result_root);
        let before = contents(root);
        for content in contents(alone) {
            prop_assert!(there.contains(&content) || before.contains(&content), "mine is lost");
        }
        for content in contents(theirs).difference(&before) {
            let named = conflicts.iter().any(|conflict| match &conflict.outcome {
                Outcome::Replaced(Seen::Leaf(entry)) => {
                    matches!(entry.content, Content::File { manifest: Some(id), .. } if id == *content)
                }
                _ => false,
            });
            prop_assert!(there.contains(content) || named, "theirs is lost: {:?}", conflicts);
        }
        // What was known here and is not there any more was removed or replaced by somebody, or that is said.
        let (mine_has, theirs_has) = (contents(alone), contents(theirs));
        for content in &before {
            if mine_has.contains(content) && !theirs_has.contains(content) && !there.contains(content) {
                let touched = mine.iter().any(|operation| match operation {
                    Operation::Rename { from, to } if from != to => {
                        leaves(&mut Draft::new(&nodes, Some(root))).get(from).is_some_and(|entry| {
                            matches!(entry.content, Content::File { manifest: Some(id), .. } if id == *content)
                        })
                    }
                    _ => false,
                });
                let followed = conflicts.iter().any(|conflict| match &conflict.outcome {
                    Outcome::Followed(entry) => {
                        matches!(entry.content, Content::File { manifest: Some(id), .. } if id == *content)
                    }
                    _ => false,
                });
                let others = conflicts.iter().any(|conflict| matches!(conflict.outcome, Outcome::Restored | Outcome::Replaced(_)));
                prop_assert!(!touched || followed || others, "{conflicts:?}");
            }
        }
        // Paths that only one of them touched are as that one left them, unless a directory above moved.
        let moved = |operations: &[Operation]| operations.iter().any(|o| matches!(o, Operation::Rename { .. }));
        if !moved(&mine) && conflicts.is_empty() {
            for operation in &mine {
                if let Operation::Put { path, .. } = operation {
                    let last = mine.iter().rev().find(|o| match o {
                        Operation::Put { path: at, .. } | Operation::Remove { path: at } => path.starts_with(at),
                        _ => false,
                    });
                    if let Some(Operation::Put { path: at, entry }) = last && at == path {
                        prop_assert_eq!(result.get(path), Some(entry));
                    }
                }
            }
        }
    }
}
