//! A new token, a new authority: what follows, and that nothing else does.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use msm_testkit::node::{CALICO, CONF, CONF_PATH, KUBECONFIG, Node};

#[test]
fn a_new_token_reaches_the_kubeconfig_alone_and_readiness_does_not_flicker() {
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
            installer.wait_until("the new token", || {
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
    assert_eq!(installer.mended(), 0);
    installer.wait_until("one line in the log for each", || {
        installer.logged("token, authority or address have changed") == 20
    });
}

#[test]
fn what_follows_from_a_token_is_written_once() {
    let node = Node::with_conf(CONF, CALICO);
    let installer = node.installed(&[]);
    node.rotate_token("rotated.token.x");
    installer.wait_until("the new token", || {
        node.read(KUBECONFIG).contains("rotated.token.x")
    });
    let stamps = node.stamps();
    // The same once more, as when nothing but the namespace has changed.
    node.rotate_token("rotated.token.x");
    node.write(CONF_PATH, CALICO);
    installer.wait_until("our entry", || installer.mended() == 1);
    let mut after = node.stamps();
    let changed = stamps
        .iter()
        .filter(|(path, stamp)| after.remove(*path).as_ref() != Some(stamp))
        .map(|(path, _)| path.file_name().unwrap().to_owned())
        .collect::<Vec<_>>();
    assert_eq!(changed, [CONF], "{}", installer.log());
}
