//! How long reading a grammar may take, and whether somebody waits for it still.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use crate::error::{Error, LimitError};

/// Units of work between two looks at the clock.
const STRIDE: u32 = 64;
/// Time between two questions whether to go on.
const PATIENCE: Duration = Duration::from_millis(20);

struct Budget {
    end: Option<Instant>,
    seconds: f64,
    interrupted: Box<dyn Fn() -> bool>,
    steps: u32,
    asked: Instant,
}

thread_local! {
    static BUDGET: RefCell<Option<Budget>> = const { RefCell::new(None) };
}

/// Puts back what was there, however the work ends.
struct Restore(Option<Budget>);

impl Drop for Restore {
    fn drop(&mut self) {
        let before = self.0.take();
        BUDGET.with(|budget| *budget.borrow_mut() = before);
    }
}

/// Does some work on this thread with a bound on its time. `interrupted` is asked now and then; the work
/// ends with a `LimitError` named `seconds` or `cancelled` where [`check`] is called next.
pub fn within<T>(
    seconds: f64,
    interrupted: impl Fn() -> bool + 'static,
    work: impl FnOnce() -> Result<T, Error>,
) -> Result<T, Error> {
    let now = Instant::now();
    let end = Duration::try_from_secs_f64(seconds).ok().and_then(|d| now.checked_add(d));
    let budget = Budget { end, seconds, interrupted: Box::new(interrupted), steps: 0, asked: now };
    let _restore = Restore(BUDGET.with(|known| known.borrow_mut().replace(budget)));
    work()
}

/// Accounts for one unit of work.
pub fn check() -> Result<(), LimitError> {
    // Taken out meanwhile: who is asked may read a grammar in turn.
    let Some(mut budget) = BUDGET.with(|budget| budget.borrow_mut().take()) else { return Ok(()) };
    let outcome = budget.check();
    BUDGET.with(|known| *known.borrow_mut() = Some(budget));
    outcome
}

impl Budget {
    #[inline]
    fn check(&mut self) -> Result<(), LimitError> {
        self.steps += 1;
        if self.steps < STRIDE {
            return Ok(());
        }
        self.steps = 0;
        self.look()
    }

    #[cold]
    fn look(&mut self) -> Result<(), LimitError> {
        let now = Instant::now();
        if self.end.is_some_and(|end| now > end) {
            return Err(LimitError { limit: "seconds".into(), value: self.seconds.ceil() as u64 });
        }
        if now.duration_since(self.asked) > PATIENCE {
            self.asked = now;
            if (self.interrupted)() {
                return Err(LimitError { limit: "cancelled".into(), value: 1 });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn for_ever() -> Result<(), Error> {
        loop {
            check()?;
        }
    }

    #[test]
    fn work_ends_with_its_time() {
        let ended = within(0.01, || false, for_ever);
        assert!(matches!(ended, Err(Error::Limit(e)) if e.limit == "seconds"));
        assert_eq!(check(), Ok(()));
    }

    #[test]
    fn work_ends_when_nobody_waits() {
        let ended = within(f64::INFINITY, || true, for_ever);
        assert!(matches!(ended, Err(Error::Limit(e)) if e.limit == "cancelled"));
    }
}
