//! What the end-to-end tests and the guest, the program of their containers, share.

#![expect(
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    reason = "only the two programs of this package call it"
)]

pub mod traffic;
