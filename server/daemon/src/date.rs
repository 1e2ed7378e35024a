//! The time as answers and files tell it, whatever the clock says.
//!
//! When the clock is put back, hyper's own `Date` says the later time until that has come again. A server whose clock is
//! of no use sends no date (RFC 9110, section 6.6.1). Linux lets no clock be set before 1970, of which hyper would
//! die all the same.

use std::cell::RefCell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::HeaderValue;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

/// Seconds from 1970 to the year 10000, which no date of HTTP's has room for.
const END_SECONDS: u64 = 253_402_300_800;

thread_local! {
    /// The second of the last answer of this thread, and its date.
    static LAST: RefCell<(u64, Option<HeaderValue>)> = const { RefCell::new((u64::MAX, None)) };
}

/// The date of an answer that is given now, unless the clock cannot be right.
pub(crate) fn now() -> Option<HeaderValue> {
    let now = SystemTime::now();
    let seconds = seconds(now)?;
    LAST.with_borrow_mut(|(last, date)| {
        if *last != seconds {
            (*last, *date) = (seconds, of(now).and_then(|text| HeaderValue::try_from(text).ok()));
        }
        date.clone()
    })
}

/// A time as HTTP writes it, if it has a date: in whole seconds, from 1970 to the year 9999.
pub(crate) fn of(time: SystemTime) -> Option<String> {
    Some(httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds(time)?)))
}

/// The time in UTC as RFC 3339 writes it, to the microsecond.
pub(crate) fn timestamp() -> String {
    let mut text = String::new();
    // Writing to a text does not fail.
    let _ = tracing_subscriber::fmt::time::SystemTime.format_time(&mut Writer::new(&mut text));
    text
}

/// Whole seconds since 1970, of the times that have a date.
fn seconds(time: SystemTime) -> Option<u64> {
    let seconds = time.duration_since(UNIX_EPOCH).ok()?.as_secs();
    (seconds < END_SECONDS).then_some(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_years_1970_to_9999_have_a_date_and_no_others() {
        let at = |seconds: u64| UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(seconds(UNIX_EPOCH - Duration::from_nanos(1)), None);
        assert_eq!(seconds(UNIX_EPOCH - Duration::from_secs(1 << 40)), None);
        assert_eq!([0, 1, END_SECONDS - 1].map(|time| seconds(at(time))), [0, 1, END_SECONDS - 1].map(Some));
        assert_eq!([END_SECONDS, 1 << 60].map(|time| seconds(at(time))), [None, None]);
        assert_eq!(httpdate::fmt_http_date(at(END_SECONDS - 1)), "Fri, 31 Dec 9999 23:59:59 GMT");
        assert!(now().unwrap().to_str().unwrap().ends_with(" GMT"));
    }
}
