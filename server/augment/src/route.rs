//! The shortest way through an image's ops.

use pba_schedules::Op;

use crate::apply::OpCall;
use crate::magnitude;
use crate::ops::{self, Table};
use crate::simd::Level;

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

/// What an op does to an image of the dataset, which is opaque.
enum Kind {
    /// Nothing.
    Rests,
    /// It looks up in a table that its magnitude fixes.
    Table,
    /// It looks up in tables that all pixels together fix.
    TableOfImage,
    /// It does more than to look up.
    Works,
}

fn kind(call: &OpCall) -> Kind {
    let &OpCall { op, magnitude: level, sign, .. } = call;
    let (rests, kind) = match op {
        Op::Rotate => (magnitude::rotate_degrees(level, sign) == 0, Kind::Works),
        Op::TranslateX | Op::TranslateY => (magnitude::translate_pixels(level, sign) == 0, Kind::Works),
        Op::ShearX | Op::ShearY => (magnitude::shear_slope(level, sign) == 0.0, Kind::Works),
        Op::Cutout => (magnitude::cutout_size(level) == 0, Kind::Works),
        Op::Color | Op::Sharpness => (magnitude::enhance_factor(level) == 1.0, Kind::Works),
        Op::Brightness => (magnitude::enhance_factor(level) == 1.0, Kind::Table),
        Op::Contrast => (magnitude::enhance_factor(level) == 1.0, Kind::TableOfImage),
        Op::Solarize => (magnitude::solarize_threshold(level) == 256, Kind::Table),
        Op::Invert | Op::Posterize => (false, Kind::Table),
        Op::Equalize | Op::AutoContrast => (false, Kind::TableOfImage),
    };
    if rests { Kind::Rests } else { kind }
}

impl Route {
    /// The way of some ops over an image of the dataset; fills the tables if it takes some, for
    /// red, green and blue. It takes none at levels where look-ups are no faster than arithmetic.
    pub(crate) fn of(level: Level, calls: &[OpCall], rgb: &[[u8; 3]], tables: &mut [Table; 3]) -> Route {
        let (mut first, mut second) = (None, None);
        for call in calls {
            match kind(call) {
                Kind::Rests => {}
                Kind::Table | Kind::TableOfImage if level.looks_up() && first.is_none() => first = Some(call),
                // Only the first op gets the pixels of the dataset.
                Kind::Table if level.looks_up() && second.is_none() => second = Some(call),
                Kind::Table | Kind::TableOfImage | Kind::Works => return Route::Work,
            }
        }
        let Some(first) = first else { return Route::Copy };
        *tables = tables_of(level, first, rgb);
        if let Some(second) = second {
            for (table, next) in tables.iter_mut().zip(&tables_of(level, second, rgb)) {
                *table = ops::compose(level, table, next);
            }
        }
        Route::LookUp
    }
}

/// The tables of an op that looks up, over an opaque image.
fn tables_of(level: Level, call: &OpCall, rgb: &[[u8; 3]]) -> [Table; 3] {
    let factor = || magnitude::enhance_factor(call.magnitude);
    match call.op {
        Op::Brightness => [ops::blend_table(level, 0, factor()); 3],
        Op::Invert => [ops::table(|value| !value); 3],
        Op::Posterize => {
            let mask = 0xFF << (8 - magnitude::posterize_bits(call.magnitude));
            [ops::table(|value| value & mask); 3]
        }
        Op::Solarize => {
            let threshold = magnitude::solarize_threshold(call.magnitude);
            [ops::table(|value| if u32::from(value) >= threshold { !value } else { value }); 3]
        }
        Op::Contrast => [ops::blend_table(level, ops::mean_gray_of_rgb(level, rgb), factor()); 3],
        Op::Equalize => ops::equalize_tables(level, rgb),
        Op::AutoContrast => ops::auto_contrast_tables(level, rgb),
        Op::Rotate
        | Op::TranslateX
        | Op::TranslateY
        | Op::Color
        | Op::Sharpness
        | Op::ShearX
        | Op::ShearY
        | Op::Cutout => unreachable!("{} does more than to look up", call.op),
    }
}
