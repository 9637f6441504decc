//! Code that the end-to-end tests share with the guest, the program in their containers.

#![expect(
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    reason = "used only by the two programs of this package"
)]

pub mod traffic;
