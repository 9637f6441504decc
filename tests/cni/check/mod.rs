//! CHECK, black box: the executable as a runtime runs it, a real HTTPS API
//! server, real sandboxes, damage done by the tools of other people, and the sentence that
//! has to name it.

mod damage;
mod leftovers;
mod passing;
mod sandbox;
