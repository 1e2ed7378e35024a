//! The splits of a dataset.

use serde::{Deserialize, Serialize};

crate::named! {
    /// Which part of a dataset.
    #[derive(Default, Serialize, Deserialize)]
    #[serde(rename_all = "lowercase")]
    pub enum SplitName {
        /// What a model is fitted to.
        #[default]
        Train = "train",
        /// What choices are made by.
        Val = "val",
        /// What is reported.
        Test = "test",
    }
}
