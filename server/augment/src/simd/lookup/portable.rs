//! In plain Rust, one byte at a time.

/// What each value of a byte becomes.
pub(crate) type LookupTable = [u8; 256];

/// The table that changes nothing.
pub(crate) const IDENTITY: LookupTable = {
    let mut table = [0; 256];
    let mut value = 0;
    while value < 256 {
        table[value] = value as u8;
        value += 1;
    }
    table
};

/// The table of a function.
#[inline]
pub(crate) fn table(function: impl Fn(u8) -> u8) -> LookupTable {
    std::array::from_fn(|value| function(value as u8))
}

/// Looks red, green and blue up; alpha gains the bits of `opaque`.
pub(crate) fn look_up(pixels: &mut [[u8; 4]], [red, green, blue]: [&LookupTable; 3], opaque: u8) {
    for pixel in pixels {
        let [r, g, b, a] = *pixel;
        *pixel = [red[usize::from(r)], green[usize::from(g)], blue[usize::from(b)], a | opaque];
    }
}

/// What a value becomes by one table and then another.
pub(crate) fn compose(first: &LookupTable, second: &LookupTable) -> LookupTable {
    first.map(|value| second[usize::from(value)])
}
