//! The parameters of the pages for people.

use pba_types::SplitName;
use pba_types::limits::EPOCHS_MAX;

use crate::query::{integer, optional, split, text};

crate::query! {
    /// What `GET /datasets/{dataset}` shows of the dataset.
    pub struct DatasetPage {
        /// Split whose images are shown [default: train, or the first that can be streamed]
        split: Option<SplitName> = None, optional(split());
        /// Schedule or policy that augments them [default: the first of the list]
        schedule: Option<String> = None, optional(text());
        /// Epoch whose first images are shown, 0-based
        epoch: u32 = 0, integer(0..=EPOCHS_MAX - 1);
    }
}

crate::query! {
    /// What `GET /schedules/{schedule}` shows beside the schedule.
    pub struct SchedulePage {
        /// Another schedule, drawn beside it [default: none]
        with: Option<String> = None, optional(text());
    }
}
