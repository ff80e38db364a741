//! Named places at which a test can have the process die or stop. They are there in builds with the feature `failpoints`
//! only; elsewhere [`hit`] is nothing.
//!
//! The variable `FAILPOINT` names a file, in which a test writes `kill PLACE` or `stop PLACE` at any time. The next time
//! the process comes by that place it removes the file and then dies at once, or stops as by SIGSTOP until it is woken.

/// Comes by a place.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub(crate) fn hit(_place: &str) {}

/// Comes by a place.
#[cfg(feature = "failpoints")]
pub(crate) fn hit(place: &str) {
    use std::{fs, process};

    let Some(file) = std::env::var_os("FAILPOINT") else { return };
    let Ok(armed) = fs::read_to_string(&file) else { return };
    let Some((action, armed)) = armed.trim().split_once(' ') else { return };
    // Whoever removes the file is the one that was meant.
    if armed != place || fs::remove_file(&file).is_err() {
        return;
    }
    eprintln!("failpoint: {action} at {place}");
    if action == "kill" {
        process::abort();
    }
    let me = process::id().to_string();
    if let Err(error) = process::Command::new("kill").args(["-STOP", &me]).status() {
        eprintln!("failpoint: cannot stop: {error}");
    }
}
