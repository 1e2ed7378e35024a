//! The shortest way through an image's ops.

use crate::call::Action;
use crate::ops::effect;
use crate::ops::face::Effect;
use crate::simd::level::{Instructions, Level};
use crate::simd::lookup::compose;
use crate::simd::lookup::portable::LookupTable;

/// How the ops of an image are done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// None changes a pixel: the base augmentation reads the dataset.
    Copy,
    /// All of them look bytes up: the base augmentation reads the dataset through tables.
    LookUp,
    /// On a working image, one op after another.
    Work,
}

impl Route {
    /// The way of some ops over an image of the dataset; fills the tables of red, green and blue if it
    /// takes them.
    pub(crate) fn of(
        level: Level,
        actions: &[Action],
        rgb: &[[u8; 3]],
        tables: &mut [LookupTable; 3],
    ) -> Route {
        // Elsewhere, looking bytes up is no faster than arithmetic.
        let looks_up = level.instructions() == Instructions::Avx512;
        let (mut first, mut second) = (None, None);
        for action in actions {
            match effect(action) {
                Effect::Nothing => {}
                Effect::Tables(of) | Effect::TablesOfImage(of) if looks_up && first.is_none() => {
                    first = Some((of, action));
                }
                // Only the first op gets the pixels of the dataset.
                Effect::Tables(of) if looks_up && second.is_none() => second = Some((of, action)),
                _ => return Route::Work,
            }
        }
        let Some((of, action)) = first else { return Route::Copy };
        *tables = of(action, level, rgb);
        if let Some((of, action)) = second {
            for (table, next) in tables.iter_mut().zip(&of(action, level, rgb)) {
                *table = compose(level, table, next);
            }
        }
        Route::LookUp
    }
}
