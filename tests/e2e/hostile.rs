//! Hostile clients at the real door. None of them crashes a process, takes more memory than the
//! limits allow, keeps a polite client from its 204, or gets a 2xx without a signature.
//!
//! Each test states how much memory its attack may take, from the limits that are configured, and
//! [`siege::Siege::lifted`] compares that with what the process has taken.

mod bodies;
mod doors;
mod framing;
mod headers;
mod http2;
mod siege;
mod size;
mod slow;
