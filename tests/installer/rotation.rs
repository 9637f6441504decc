//! Rotation of the service account's token.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use msm_testkit::node::{CALICO, CONF, CONF_PATH, KUBECONFIG, Node};

#[test]
fn token_rotation_changes_only_the_kubeconfig_and_keeps_the_node_ready() {
    let node = Node::with_conf(CONF, CALICO);
    let installer = node.installed(&[]);
    let mut before = node.stamps();
    let done = &AtomicBool::new(false);
    thread::scope(|scope| {
        let prober = scope.spawn(|| {
            let mut answers = 0;
            while !done.load(Ordering::Relaxed) {
                let (code, body) = installer.ready().unwrap();
                assert_eq!(code, 200, "{body}");
                answers += 1;
            }
            answers
        });
        for number in 1..=20 {
            let token = format!("rotated.token.{number}x");
            node.rotate_token(&token);
            installer.reacts("the new token", || {
                node.read(KUBECONFIG)
                    .contains(&format!("\"token\": \"{token}\""))
            });
        }
        done.store(true, Ordering::Relaxed);
        assert!(prober.join().unwrap() > 0);
    });
    let mut after = node.stamps();
    let kubeconfig = node.path(KUBECONFIG);
    assert_ne!(before.remove(&kubeconfig), after.remove(&kubeconfig));
    assert_eq!(before, after, "{}", installer.log());
    assert_eq!(installer.repairs(), 0);
    installer.wait_until("one log line per rotation", || {
        installer.logged("token, CA bundle or API server address changed") == 20
    });
}

#[test]
fn unchanged_token_is_not_written_again() {
    let node = Node::with_conf(CONF, CALICO);
    let installer = node.installed(&[]);
    node.rotate_token("rotated.token.x");
    installer.wait_until("the new token", || {
        node.read(KUBECONFIG).contains("rotated.token.x")
    });
    let stamps = node.stamps();
    // The same token, mounted again.
    node.rotate_token("rotated.token.x");
    node.write(CONF_PATH, CALICO);
    installer.wait_until("the plugin entry", || installer.repairs() == 1);
    let mut after = node.stamps();
    let changed = stamps
        .iter()
        .filter(|(path, stamp)| after.remove(*path).as_ref() != Some(stamp))
        .map(|(path, _)| path.file_name().unwrap().to_owned())
        .collect::<Vec<_>>();
    assert_eq!(changed, [CONF], "{}", installer.log());
}
