//! The state machine over a scripted network, in virtual time: what the system may answer, answered exactly when the test says.

mod accepting;
mod life;
#[cfg(target_os = "linux")]
mod oneself;
mod options;
mod random;
mod reading;
mod script;
mod writing;
