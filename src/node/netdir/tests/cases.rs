//! Single cases: a configuration directory, what other components do to it, and the outcome.

use std::fs;
use std::path::PathBuf;

use super::*;

// Which file gets the entry.

#[test]
fn only_first_valid_file_gets_the_entry() {
    for (files, expected) in [
        (
            &[("10-a.conflist", LIST), ("20-b.conflist", LIST)][..],
            "10-a.conflist",
        ),
        (
            &[("10-a.conflist", "{"), ("20-b.conflist", LIST)],
            "20-b.conflist",
        ),
        (
            &[("10-a.conf", LIST), ("20-b.conflist", LIST)],
            "20-b.conflist",
        ),
        (
            &[("10-a.conflist", SINGLE), ("20-b.conflist", LIST)],
            "20-b.conflist",
        ),
        (
            &[("10-a.conflist", ""), ("20-b.conflist", LIST)],
            "20-b.conflist",
        ),
        (
            &[("10-a.conflist.bak", LIST), ("20-b.conflist", LIST)],
            "20-b.conflist",
        ),
        (
            &[("10-a.conf", OURS), ("20-b.conflist", LIST)],
            "20-b.conflist",
        ),
        (&[("Z.conflist", LIST), ("a.conflist", LIST)], "Z.conflist"),
        (
            &[(".a.conflist", LIST), ("10-a.conflist", LIST)],
            ".a.conflist",
        ),
    ] {
        let mut node = Node::new(files);
        node.settle_chained();
        for (name, content) in files.iter().filter(|(name, _)| *name != "10-a.conf") {
            let is_changed = node.content(name) != Some(content);
            assert_eq!(is_changed, *name == expected, "{name}\n{node}");
        }
    }
}

#[test]
fn entry_moves_to_new_first_file_and_old_file_is_restored() {
    for old in [
        ("10-x.conflist", LIST),
        ("10-x.conf", SINGLE),
        ("10-x.json", SINGLE),
    ] {
        let mut node = Node::new(&[old]);
        node.settle_chained();
        node.write("05-new.conflist", OTHER_LIST);
        node.settle_chained();
        assert_eq!(node.content(old.0), Some(old.1), "{node}");
        assert_eq!(names(&node), ["05-new.conflist", old.0]);
        node.files.remove("05-new.conflist");
        node.settle_chained();
        node.uninstall();
        assert_eq!(node.tree(), tree(&[old]));
    }
}

#[test]
fn missing_network_is_reported_with_the_files_that_exist() {
    for (files, flags, parts) in [
        (
            &[][..],
            &[][..],
            &["/net.d contains no valid network configuration yet"][..],
        ),
        (
            &[("10-x.conflist", "{")],
            &[],
            &["10-x.conflist cannot be used: not valid JSON"],
        ),
        (
            &[("10-x.conf", LIST)],
            &[],
            &["10-x.conf cannot be used", "no type"],
        ),
        (
            &[("10-x.conflist", LIST), ("30-z.conf", "{")],
            &["--cni-conf-name=30-z.conf"],
            &["a valid 30-z.conf yet", "30-z.conf cannot be used"],
        ),
        (
            &[("10-x.conflist", "{")],
            &["--cni-conf-name=30-z.conf"],
            &["a valid 30-z.conf yet; waiting for the node's network plugin to write it"],
        ),
        (
            &[("10-x.conf.msm-cni-original", SINGLE)],
            &[],
            &["10-x.conflist was removed"],
        ),
    ] {
        let mut node = Node::new(files).with_flags(flags);
        let reasons = node.settle();
        assert_one_reason(&reasons, parts);
        assert_eq!(node.tree(), tree(files));
        node.uninstall();
        assert_eq!(node.tree(), tree(files));
    }
}

#[test]
fn first_file_that_only_the_runtime_may_load_is_waited_for() {
    let elsewhere =
        Unreadable::OutsideContainer("it is a symlink to /x, which is not there".into());
    let failed = Unreadable::Io("Input/output error".into());
    let directory = Unreadable::NotAFile("it is a directory".into());
    let nameless = Ok(snapshot(br#"{"type": "bridge"}"#));
    let latin = Ok(snapshot(b"{\"name\":\"\xe4\",\"type\":\"bridge\"}"));
    for (name, file, is_waited_for) in [
        ("05-a.conflist", Err(elsewhere.clone()), true),
        ("05-a.conf", Err(failed), true),
        ("05-a.conf", nameless, true),
        ("05-a.conf", latin, true),
        ("05-a.conf", Err(directory), false),
        ("05-a.bak", Err(elsewhere.clone()), false),
        ("30-a.conf", Err(elsewhere.clone()), false),
    ] {
        let mut node = Node::new(&[("10-x.conflist", LIST)]);
        node.files.insert(name.into(), file.clone());
        let reasons = node.settle();
        assert_eq!(reasons.len(), usize::from(is_waited_for), "{file:?}");
        assert!(
            reasons.iter().all(|reason| reason.contains(name)),
            "{reasons:?}"
        );
        // Until then, the first file that msm-cni can load gets the entry.
        let entry = node.content("10-x.conflist").unwrap();
        assert!(entry.contains("msm-cni"), "{node}");
    }
    // A file that is named by a flag needs no search.
    let mut node =
        Node::new(&[("10-x.conflist", LIST)]).with_flags(&["--cni-conf-name=10-x.conflist"]);
    node.files.insert("05-a.conf".into(), Err(elsewhere));
    node.settle();
    assert_eq!(node.plan().waiting, Vec::<String>::new());
}

// Conversion of a `.conf` to a `.conflist` and back.

#[test]
fn conf_is_converted_and_restored() {
    for name in ["10-x.conf", "10-x.json", "10-x.y.conf", r#"1 "x"\.conf"#] {
        let mut node = Node::new(&[(name, SINGLE)]);
        node.files.get_mut(name).unwrap().as_mut().unwrap().mode = 0o600;
        node.settle_chained();
        let mut expected = vec![list_name(name), backup_name(name)];
        expected.sort();
        assert_eq!(names(&node), expected);
        assert_eq!(node.mode(&list_name(name)), 0o600);
        node.uninstall();
        assert_eq!(node.tree(), tree(&[(name, SINGLE)]));
        assert_eq!(node.mode(name), 0o600);
    }
}

#[test]
fn interruption_after_any_step_leads_to_the_same_result() {
    for start in [
        &[("10-x.conf", SINGLE)][..],
        &[("10-x.json", SINGLE)],
        &[("10-x.conf", SINGLE), ("20-y.conf", OTHER_SINGLE)],
        &[("10-x.conflist", LIST)],
    ] {
        let mut whole = Node::new(start);
        whole.settle_chained();
        let mut left = whole.clone();
        left.uninstall();
        assert_eq!(left.tree(), tree(start));
        for is_uninstall in [false, true] {
            let (begin, plan) = if is_uninstall {
                (whole.clone(), whole.removal().plan)
            } else {
                (Node::new(start), Node::new(start).plan())
            };
            for cut in 0..=plan.steps.len() {
                let mut node = begin.clone();
                for step in plan.steps.iter().take(cut) {
                    node.execute(&step.action);
                }
                let mut again = node.clone();
                again.settle_chained();
                assert_eq!(again.tree(), whole.tree(), "{cut} of {plan:?}");
                node.uninstall();
                assert_eq!(node.tree(), tree(start), "{cut} of {plan:?}");
            }
        }
    }
}

#[test]
fn rewritten_conf_is_converted_again() {
    for name in ["10-x.conf", "10-x.json"] {
        for rewritten in [SINGLE, OTHER_SINGLE] {
            let mut node = Node::new(&[(name, SINGLE)]);
            node.settle_chained();
            node.write(name, rewritten);
            // Uninstallation keeps the current version.
            let removed = {
                let mut node = node.clone();
                node.uninstall();
                node.tree()
            };
            assert_eq!(removed, tree(&[(name, rewritten)]));
            let mut expected = Node::new(&[(name, rewritten)]);
            expected.settle_chained();
            node.settle_chained();
            assert_eq!(node.tree(), expected.tree());
        }
        let mut node = Node::new(&[(name, SINGLE)]);
        node.settle_chained();
        let before = node.clone();
        // An incomplete file is ignored.
        node.write(name, "{\"name\":");
        node.settle_chained();
        node.files.remove(name);
        assert_eq!(node.tree(), before.tree());
    }
}

#[test]
fn new_conf_replaces_json_of_same_stem_which_is_restored() {
    let (conf, json) = (("10-x.conf", SINGLE), ("10-x.json", OTHER_SINGLE));
    let mut node = Node::new(&[json]);
    node.settle_chained();
    node.write(conf.0, conf.1);
    node.settle_chained();
    assert_eq!(node.content(json.0), Some(json.1), "{node}");
    let mut left = node.clone();
    left.uninstall();
    assert_eq!(left.tree(), tree(&[conf, json]));
    // Its owner removes the conf, which is the list by now.
    node.files.remove("10-x.conflist");
    node.settle_chained();
    assert_eq!(node.content("10-x.json.msm-cni-original"), Some(json.1));
}

#[test]
fn existing_list_of_same_stem_is_not_overwritten() {
    for files in [
        &[("10-x.conf", SINGLE), ("10-x.conflist", LIST)][..],
        &[("10-x.conf", SINGLE), ("10-x.conflist", "{")],
        &[
            ("10-x.conf", SINGLE),
            ("10-x.conflist", LIST),
            ("10-x.conf.msm-cni-original", OTHER_SINGLE),
        ],
        // Even if it equals the converted `.conf`.
        &[
            ("10-x.conf", SINGLE),
            (
                "10-x.conflist",
                r#"{"name":"s","cniVersion":"0.3.1","plugins":[{"name":"s","cniVersion":"0.3.1","type":"bridge"}]}"#,
            ),
        ],
    ] {
        let mut node = Node::new(files);
        assert_one_reason(
            &node.settle(),
            &["both 10-x.conf and 10-x.conflist are in /net.d"],
        );
        assert_eq!(node.tree(), tree(files));
    }
    // The list was the first file and had the entry.
    let mut node = Node::new(&[("10-x.conflist", LIST)]);
    node.settle_chained();
    node.write("10-x.conf", SINGLE);
    assert_one_reason(&node.settle(), &["both"]);
    node.uninstall();
    assert_eq!(
        node.tree(),
        tree(&[("10-x.conf", SINGLE), ("10-x.conflist", LIST)])
    );
}

#[test]
fn edits_of_other_components_are_never_lost() {
    let mut node = Node::new(&[("10-x.conf", SINGLE)]);
    node.settle_chained();
    let list = node.content("10-x.conflist").unwrap();
    let edited = list.replacen("\n  ]", ",\n    {\"type\": \"istio-cni\"}\n  ]", 1);
    node.write("10-x.conflist", &edited);
    node.settle_chained();
    let settled = node.clone();
    // The owner writes the same content again: the list contains all of it.
    node.write("10-x.conf", SINGLE);
    node.settle_chained();
    assert_eq!(node.tree(), settled.tree());
    // Other content: it is unknown which of the two files is current.
    node.write("10-x.conf", OTHER_SINGLE);
    assert_one_reason(&node.settle(), &["both 10-x.conf and 10-x.conflist"]);
    node.files.remove("10-x.conf");

    let RemovalPlan { notes, .. } = node.uninstall();
    assert_one_reason(
        &notes,
        &["10-x.conf.msm-cni-original is kept", "10-x.conflist"],
    );
    assert_eq!(
        names(&node),
        ["10-x.conf.msm-cni-original", "10-x.conflist"]
    );
    let left = node.network(Runtime::Crio).unwrap();
    assert_eq!(left.plugins.len(), 2);
    assert_eq!(left.plugins[1]["type"], "istio-cni");
    assert_eq!(node.content("10-x.conf.msm-cni-original"), Some(SINGLE));
}

#[test]
fn files_removed_by_other_components_are_not_recreated() {
    // The backup: the list cannot be converted back.
    let mut node = Node::new(&[("10-x.conf", SINGLE)]);
    node.settle_chained();
    let networks = node.networks();
    node.files.remove("10-x.conf.msm-cni-original");
    node.settle_chained();
    node.uninstall();
    assert_eq!(names(&node), ["10-x.conflist"]);
    assert_eq!(node.networks(), networks);

    // The list: there is no network until its owner writes one.
    let mut node = Node::new(&[("10-x.conf", SINGLE)]);
    node.settle_chained();
    node.files.remove("10-x.conflist");
    assert_one_reason(
        &node.settle(),
        &["10-x.conflist was removed", "10-x.conf.msm-cni-original"],
    );
    let mut left = node.clone();
    assert_one_reason(
        &left.uninstall().notes,
        &["10-x.conf.msm-cni-original is kept"],
    );
    assert_eq!(left.tree(), tree(&[("10-x.conf.msm-cni-original", SINGLE)]));
    node.write("20-y.conflist", LIST);
    node.settle_chained();
    node.write("10-x.conf", OTHER_SINGLE);
    node.settle_chained();
    node.uninstall();
    assert_eq!(
        node.tree(),
        tree(&[("10-x.conf", OTHER_SINGLE), ("20-y.conflist", LIST)])
    );

    // The entry, before uninstallation.
    let mut node = Node::new(&[("10-x.conf", SINGLE)]);
    node.settle_chained();
    let network = r#"{"name":"s","cniVersion":"0.3.1","plugins":[{"type":"bridge","name":"s","cniVersion":"0.3.1"}]}"#;
    node.write("10-x.conflist", network);
    node.uninstall();
    assert_eq!(node.tree(), tree(&[("10-x.conf", SINGLE)]));
}

#[test]
fn conf_is_not_converted_if_another_file_would_sort_before_the_list() {
    // Between the name of the `.conf` and that of its list. containerd fails if that file is
    // invalid.
    for other in [LIST, "{"] {
        let files = [("10-x.conf", SINGLE), ("10-x.conf-b.conflist", other)];
        let mut node = Node::new(&files);
        assert_one_reason(
            &node.settle(),
            &["10-x.conf can hold only one plugin", "10-x.conf-b.conflist"],
        );
        assert_eq!(node.tree(), tree(&files));
        let mut node = Node::new(&files[..1]);
        node.settle_chained();
        node.write(files[1].0, files[1].1);
        assert_one_reason(&node.settle(), &["10-x.conf can hold only one plugin"]);
        assert_eq!(node.tree(), tree(&files));
    }

    // The list of a `.json` sorts before it; a file between them is before the `.json` as well.
    let files = [("10-x.json", SINGLE), ("10-x.d.conflist", LIST)];
    let mut node = Node::new(&files[..1]);
    node.settle_chained();
    node.write(files[1].0, files[1].1);
    node.settle_chained();
    assert_eq!(node.content("10-x.json"), Some(SINGLE), "{node}");
    node.uninstall();
    assert_eq!(node.tree(), tree(&files));
}

// The record of a list's origin.

/// What release 0.1.0 or another component may have written instead of the record.
const RECORDS: [&str; 5] = [
    "",
    "\n  \"msm-cni\": {\"from\": \"10-x.json\"},",
    "\n  \"msm-cni\": {\"from\": \"20-y.conf\"},",
    "\n  \"msm-cni\": {\"from\": \"\", \"x\": 1},",
    "\n  \"msm-cni\": {\"from\": \"../10-x.conf\"},",
];
const RECORD: &str = "\n  \"msm-cni\": {\"from\": \"10-x.conf\"},";

/// A node with a converted `.conf`, and the same with another record.
fn converted_with(record: &str) -> (Node, Node) {
    let mut settled = Node::new(&[("10-x.conf", SINGLE)]);
    settled.settle_chained();
    let mut node = settled.clone();
    let list = node.content("10-x.conflist").unwrap();
    assert!(list.contains(RECORD), "{list}");
    node.write("10-x.conflist", &list.replace(RECORD, record));
    (settled, node)
}

#[test]
fn list_without_record_gets_it() {
    for record in RECORDS {
        let (settled, mut node) = converted_with(record);
        let steps = node.plan().steps;
        let reasons: Vec<_> = steps.iter().map(|step| step.reason.as_str()).collect();
        assert_eq!(
            reasons,
            ["the name of its original was not recorded"],
            "{record}"
        );
        node.settle_chained();
        assert_eq!(node.tree(), settled.tree(), "{record}");
    }
}

#[test]
fn list_without_record_is_replaced_by_its_backup_on_uninstall() {
    for record in RECORDS {
        let (_, mut node) = converted_with(record);
        node.uninstall();
        assert_eq!(node.tree(), tree(&[("10-x.conf", SINGLE)]), "{record}");
    }
}

#[test]
fn list_without_record_is_converted_again_when_its_conf_is_rewritten() {
    for record in RECORDS {
        for rewritten in [SINGLE, OTHER_SINGLE] {
            let (_, mut node) = converted_with(record);
            node.write("10-x.conf", rewritten);
            let mut expected = Node::new(&[("10-x.conf", rewritten)]);
            expected.settle_chained();
            node.settle_chained();
            assert_eq!(node.tree(), expected.tree(), "{record}");
        }
    }
}

#[test]
fn list_without_record_is_recognised_after_an_interrupted_conversion() {
    for record in RECORDS {
        let (settled, mut node) = converted_with(record);
        node.write("10-x.conf", SINGLE);
        node.files.remove("10-x.conf.msm-cni-original");
        let mut left = node.clone();
        left.uninstall();
        assert_eq!(left.tree(), tree(&[("10-x.conf", SINGLE)]), "{record}");
        node.settle_chained();
        assert_eq!(node.tree(), settled.tree(), "{record}");
    }
}

#[test]
fn record_of_unknown_form_counts_as_an_edit() {
    let (_, mut node) = converted_with("\n  \"msm-cni\": 7,");
    let before = node.tree();
    node.settle_chained();
    assert_eq!(node.tree(), before);
    assert_one_reason(
        &node.uninstall().notes,
        &["10-x.conf.msm-cni-original is kept"],
    );
    let list = node.content("10-x.conflist").unwrap();
    assert!(list.contains("\"msm-cni\": 7"), "{list}");
}

#[test]
fn recorded_origin_is_converted_again_without_a_backup() {
    for name in ["10-x.conf", "10-x.json"] {
        let mut node = Node::new(&[(name, SINGLE)]);
        // Interrupted before the backup, or the backup was removed.
        let steps = node.plan().steps;
        let write = steps.iter().position(|step| {
            matches!(&step.action, Action::Write { path, .. } if path.ends_with("10-x.conflist"))
        });
        for step in &steps[..=write.unwrap()] {
            node.execute(&step.action);
        }
        node.write(name, OTHER_SINGLE);
        let mut left = node.clone();
        left.uninstall();
        assert_eq!(left.tree(), tree(&[(name, OTHER_SINGLE)]));
        let mut expected = Node::new(&[(name, OTHER_SINGLE)]);
        expected.settle_chained();
        node.settle_chained();
        assert_eq!(node.tree(), expected.tree());
    }
}

#[test]
fn recorded_list_without_backup_is_replaced_by_new_conf_of_same_stem() {
    let mut node = Node::new(&[("10-x.json", SINGLE)]);
    node.settle_chained();
    node.files.remove("10-x.json.msm-cni-original");
    node.write("10-x.conf", OTHER_SINGLE);
    let mut expected = Node::new(&[("10-x.conf", OTHER_SINGLE)]);
    expected.settle_chained();
    node.settle_chained();
    assert_eq!(node.tree(), expected.tree());
}

#[test]
fn uninstall_removes_the_record_from_an_edited_list() {
    let (settled, mut node) = converted_with(RECORD);
    let list = node.content("10-x.conflist").unwrap();
    let edited = list.replacen("\"type\":\"bridge\"", "\"type\":\"bridge\",\"mtu\":9000", 1);
    node.write("10-x.conflist", &edited);
    node.settle_chained();
    assert_eq!(node.content("10-x.conflist"), Some(edited.as_str()));
    node.uninstall();
    let list = node.content("10-x.conflist").unwrap();
    assert!(list.contains("9000") && !list.contains("msm-cni"), "{list}");
    assert_eq!(names(&node), names(&settled));
}

// Names, modes and tokens.

#[test]
fn file_named_by_flag_gets_the_entry() {
    let list = ("10-x.conflist", LIST);
    let single = ("10-x.conf", SINGLE);
    let first = ("00-first.conflist", OTHER_LIST);
    for (files, conf_name, expected) in [
        (&[first, list][..], "10-x.conflist", "10-x.conflist"),
        (&[first, single], "10-x.conf", "10-x.conflist"),
        // The list of the named file, or the file of the named list.
        (&[first, list], "10-x.conf", "10-x.conflist"),
        (&[first, single], "10-x.conflist", "10-x.conflist"),
        (
            &[first, ("10-x.json", SINGLE)],
            "10-x.json",
            "10-x.conflist",
        ),
    ] {
        let flag = format!("--cni-conf-name={conf_name}");
        let mut node = Node::new(files).with_flags(&[&flag]);
        assert_eq!(node.settle(), Vec::<String>::new());
        assert!(
            node.content(expected).unwrap().contains("msm-cni"),
            "{node}"
        );
        assert_eq!(node.content(first.0), Some(first.1));
        node.uninstall();
        assert_eq!(node.tree(), tree(files));
    }
    // Rewritten by its owner.
    let mut node = Node::new(&[single]).with_flags(&["--cni-conf-name=10-x.conf"]);
    node.settle_chained();
    node.write("10-x.conf", OTHER_SINGLE);
    node.settle_chained();
    node.uninstall();
    assert_eq!(node.tree(), tree(&[("10-x.conf", OTHER_SINGLE)]));
    // Another name later: the entry moves as soon as that file exists.
    let mut node = Node::new(&[first, list]);
    node.settle_chained();
    let before = node.tree();
    node.flags = vec!["--cni-conf-name=30-z.conflist".into()];
    assert_one_reason(&node.settle(), &["30-z.conflist"]);
    assert_eq!(node.tree(), before);
    node.write("30-z.conflist", LIST);
    assert_eq!(node.settle(), Vec::<String>::new());
    assert_eq!(node.content(first.0), Some(first.1));
    node.uninstall();
    assert_eq!(node.tree(), tree(&[first, list, ("30-z.conflist", LIST)]));
}

#[test]
fn stand_alone_entry_is_a_separate_file_and_others_are_kept() {
    let others = [("10-x.conflist", LIST), ("20-y.conf", SINGLE)];
    for (flags, name) in [
        (&["--chained-cni-plugin=false"][..], "YYY-msm-cni.conf"),
        (
            &["--chained-cni-plugin=false", "--cni-conf-name=30-m.conf"],
            "30-m.conf",
        ),
        (
            &["--chained-cni-plugin=false", "--cni-conf-name=30-m.json"],
            "30-m.json",
        ),
        (
            &[
                "--chained-cni-plugin=false",
                "--cni-conf-name=00-m.conflist",
            ],
            "00-m.conflist",
        ),
    ] {
        let mut node = Node::new(&others).with_flags(flags);
        assert_eq!(node.settle(), Vec::<String>::new());
        let alone = Node::new(&[(name, node.content(name).unwrap())]);
        for runtime in Runtime::ALL {
            let network = alone.network(runtime).unwrap();
            assert!(
                network.ends_with_us() && network.plugins.len() == 1,
                "{node}"
            );
            assert_eq!(
                (network.name.as_str(), network.version.as_str()),
                ("msm-cni", "1.0.0")
            );
        }
        for (other, content) in others {
            assert_eq!(node.content(other), Some(content));
        }
        // A changed or invalid file is restored.
        let expected = node.tree();
        let other = node.content(name).unwrap().replace("info", "trace");
        node.write(name, &other);
        assert_eq!(node.settle(), Vec::<String>::new());
        assert_eq!(node.tree(), expected);
        node.files.get_mut(name).unwrap().as_mut().unwrap().mode = 0o666;
        node.settle();
        assert_eq!(node.mode(name), 0o644);
        node.uninstall();
        assert_eq!(node.tree(), tree(&others));
    }
    let mut node =
        Node::new(&[("YYY-msm-cni.conf", "{")]).with_flags(&["--chained-cni-plugin=false"]);
    assert_eq!(node.settle(), Vec::<String>::new());
}

#[test]
fn stand_alone_does_not_overwrite_file_of_another_component() {
    let flags = [
        "--chained-cni-plugin=false",
        "--cni-conf-name=10-x.conflist",
    ];
    for content in [LIST, "", "{\"name\":", SINGLE] {
        let mut node = Node::new(&[("10-x.conflist", content)]).with_flags(&flags);
        assert_one_reason(
            &node.settle(),
            &[
                "/net.d/10-x.conflist belongs to another component",
                "--cni-conf-name",
            ],
        );
        assert_eq!(node.content("10-x.conflist"), Some(content));
    }
    let default = ["--chained-cni-plugin=false"];
    let mut node = Node::new(&[("YYY-msm-cni.conf", SINGLE)]).with_flags(&default);
    assert_one_reason(
        &node.settle(),
        &["YYY-msm-cni.conf belongs to another component"],
    );
    assert_eq!(node.content("YYY-msm-cni.conf"), Some(SINGLE));
}

#[test]
fn switch_between_chained_and_stand_alone_removes_the_old_files() {
    let alone = ["--chained-cni-plugin=false"];
    for files in [
        &[("10-x.conflist", LIST)][..],
        &[("10-x.conf", SINGLE)],
        &[("10-x.json", SINGLE), ("20-y.conflist", LIST)],
    ] {
        let mut chained = Node::new(files);
        chained.settle_chained();
        let expected = chained.tree();
        let mut node = chained.with_flags(&alone);
        assert_eq!(node.settle(), Vec::<String>::new());
        node.files.remove("YYY-msm-cni.conf");
        assert_eq!(node.tree(), tree(files));
        node.settle();
        let mut node = node.with_flags(&[]);
        node.settle_chained();
        assert_eq!(node.tree(), expected);
    }
    // A stand-alone plugin is not a network to chain to.
    let mut node = Node::new(&[]).with_flags(&alone);
    node.settle();
    let mut node = node.with_flags(&[]);
    assert_one_reason(&node.settle(), &["no valid network configuration"]);
    assert_eq!(names(&node), Vec::<String>::new());
}

#[test]
fn entry_with_token_is_readable_by_owner_only() {
    let template =
        r#"--cni-network-config={"name":"m","type":"msm-cni","token":"__SERVICEACCOUNT_TOKEN__"}"#;
    for name in ["10-x.conflist", "10-x.conf"] {
        let content = if name == "10-x.conf" { SINGLE } else { LIST };
        let mut node = Node::new(&[(name, content)]).with_flags(&[template]);
        node.settle_chained();
        let list = "10-x.conflist";
        assert!(node.content(list).unwrap().contains("first.token"));
        assert_eq!(node.mode(list), 0o600);
        // A rotated token is a renewal.
        node.token = "second.token";
        let steps = node.plan().steps;
        assert!(
            !steps.is_empty() && steps.iter().all(|step| step.cause == Cause::Renewal),
            "{steps:?}"
        );
        node.settle_chained();
        assert!(node.content(list).unwrap().contains("second.token"));
        // A mode changed by another component is a repair.
        node.files.get_mut(list).unwrap().as_mut().unwrap().mode = 0o644;
        node.settle_chained();
        assert_eq!(node.mode(list), 0o600);
        node.uninstall();
        assert_eq!(node.tree(), tree(&[(name, content)]));
    }
    let mut node = Node::new(&[]).with_flags(&[template, "--chained-cni-plugin=false"]);
    node.settle();
    assert_eq!(node.mode("YYY-msm-cni.conf"), 0o600);
    node.token = "second.token";
    let steps = node.plan().steps;
    assert!(
        !steps.is_empty() && steps.iter().all(|step| step.cause == Cause::Renewal),
        "{steps:?}"
    );
    // Without a token the mode is kept.
    let mut node = Node::new(&[("10-x.conflist", LIST)]);
    node.files
        .get_mut("10-x.conflist")
        .unwrap()
        .as_mut()
        .unwrap()
        .mode = 0o664;
    node.settle_chained();
    assert_eq!(node.mode("10-x.conflist"), 0o664);
}

#[test]
fn changed_file_keeps_its_owner() {
    let owner = Owner { uid: 7, gid: 8 };
    for name in ["10-x.conflist", "10-x.conf"] {
        let content = if name == "10-x.conf" { SINGLE } else { LIST };
        let mut node = Node::new(&[(name, content)]);
        node.files.get_mut(name).unwrap().as_mut().unwrap().owner = owner;
        node.settle_chained();
        assert_eq!(node.files["10-x.conflist"].as_ref().unwrap().owner, owner);
        node.uninstall();
        assert_eq!(node.files[name].as_ref().unwrap().owner, owner);
    }
}

#[test]
fn kubeconfig_is_kept_while_an_entry_may_remain() {
    for (name, file, is_kept) in [
        (
            "20-y.conflist",
            Ok(snapshot(b"{\"plugins\":[{\"type\":\"msm-cni\"")),
            true,
        ),
        (
            "20-y.conf",
            Err(Unreadable::Io("Input/output error".into())),
            true,
        ),
        (
            "20-y.conflist",
            Ok(snapshot(b"{\"plugins\":[{\"type\":\"cal")),
            false,
        ),
        (
            "20-y.conf",
            Err(Unreadable::NotAFile("it is a directory".into())),
            false,
        ),
        (
            "20-y.conf",
            Err(Unreadable::OutsideContainer("it is a symlink".into())),
            false,
        ),
        ("20-y.conflist.bak", Ok(snapshot(b"msm-cni")), false),
    ] {
        let mut node = Node::new(&[("10-x.conflist", LIST)]);
        node.settle_chained();
        node.files.insert(name.into(), file.clone());
        let Plan { waiting, .. } = node.uninstall().plan;
        assert_eq!(node.content("10-x.conflist"), Some(LIST));
        assert_eq!(waiting.len(), usize::from(is_kept), "{waiting:?}");
        assert!(
            waiting.iter().all(|reason| reason.contains(name)),
            "{waiting:?}"
        );
        let kubeconfig = node.files.contains_key(crate::names::KUBECONFIG_FILE);
        assert_eq!(kubeconfig, is_kept, "{file:?}");
    }
}

/// The fixtures of tests/fixtures/installer, which the black-box tests use too.
#[test]
fn every_fixture_leads_to_the_expected_files() {
    let cases = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/installer");
    let mut count = 0;
    for case in fs::read_dir(cases).unwrap() {
        let case = case.unwrap().path();
        let read = |path: PathBuf| -> Node {
            let mut node = Node::new(&[]);
            for file in fs::read_dir(path).into_iter().flatten() {
                let file = file.unwrap();
                let name = file.file_name().into_string().unwrap();
                let content = fs::read(file.path()).unwrap();
                node.files.insert(name, Ok(snapshot(&content)));
            }
            node
        };
        let text = |name: &str| fs::read_to_string(case.join(name)).unwrap_or_default();
        let flags = text("flags");
        let flags: Vec<&str> = flags.lines().collect();
        let start = read(case.join("in"));
        let mut node = start.clone().with_flags(&flags);
        let waiting = node.settle().join("\n");
        let expected = text("waiting");
        assert!(
            waiting.contains(expected.trim()) && waiting.is_empty() == expected.is_empty(),
            "{}: {waiting}",
            case.display()
        );
        assert_eq!(
            node.tree(),
            read(case.join("expected")).tree(),
            "{}",
            case.display()
        );
        let networks = node.networks();
        node.uninstall();
        let left = case.join("left");
        let left = read(if left.is_dir() { left } else { case.join("in") });
        assert_eq!(node.tree(), left.tree(), "{}", case.display());
        // The network was always the one without msm-cni.
        assert_eq!(networks, left.networks(), "{}", case.display());
        count += 1;
    }
    assert!(count > 20, "{count} cases");
}
