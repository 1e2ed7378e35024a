//! The segments before a JPEG scan.

use super::huffman::Code;

/// A sequential JPEG image of 8-bit samples in one scan, gray or YCbCr.
#[derive(Default)]
pub(super) struct Header<'a> {
    pub height: usize,
    pub width: usize,
    /// One component, or three.
    pub components: Vec<Component>,
    /// Quantisation tables, in zigzag order.
    pub quantisation: [Option<[u8; 64]>; 4],
    pub dc_codes: [Option<Code<'a>>; 4],
    pub ac_codes: [Option<Code<'a>>; 4],
    /// MCUs between two restart markers; 0 for none.
    pub restart_interval: usize,
    /// What follows the header of the scan.
    pub scan: &'a [u8],
}

/// How a component is sampled, and which tables it uses.
#[derive(Clone, Copy)]
pub(super) struct Component {
    pub across: usize,
    pub down: usize,
    pub quantisation: usize,
    pub dc: usize,
    pub ac: usize,
}

/// Reads a header, as long as it is one that we decode ourselves, without any irregularity.
pub(super) fn read(bytes: &[u8]) -> Option<Header<'_>> {
    let mut rest = bytes.strip_prefix(&[0xff, 0xd8])?;
    let mut header = Header::default();
    let (mut names, mut jfif, mut adobe) = (Vec::new(), false, None);
    loop {
        let (&[0xff, marker], after) = rest.split_first_chunk::<2>()? else { return None };
        let (length, _) = after.split_first_chunk::<2>()?;
        let length = usize::from(u16::from_be_bytes(*length));
        let segment = after.get(2..length)?;
        rest = &after[length..];
        match marker {
            0xc0 | 0xc1 if names.is_empty() => names = frame(segment, &mut header)?,
            0xc4 => codes(segment, &mut header)?,
            0xda => {
                let colour = match (jfif, adobe) {
                    (true, _) | (false, Some(1)) => true,
                    (false, Some(_)) => false,
                    (false, None) => names == [1, 2, 3],
                };
                if names.len() == 3 && !colour {
                    return None;
                }
                scan(segment, &names, &mut header)?;
                header.scan = rest;
                return Some(header);
            }
            0xdb => quantisation(segment, &mut header)?,
            0xdd => header.restart_interval = u16::from_be_bytes(segment.try_into().ok()?).into(),
            0xe0 => jfif |= segment.len() >= 12 && segment.starts_with(b"JFIF\0"),
            0xee if segment.starts_with(b"Adobe") => adobe = Some(*segment.get(11)?),
            0xe1..=0xef | 0xfe => {}
            _ => return None,
        }
    }
}

/// Reads the frame's header, and gives the names of its components.
fn frame(segment: &[u8], header: &mut Header) -> Option<Vec<u8>> {
    let (&[8, height_high, height_low, width_high, width_low, count], rest) =
        segment.split_first_chunk::<6>()?
    else {
        return None;
    };
    header.height = u16::from_be_bytes([height_high, height_low]).into();
    header.width = u16::from_be_bytes([width_high, width_low]).into();
    let (components, []) = rest.as_chunks::<3>() else { return None };
    let known_tables = components.iter().all(|&[_, _, table]| table < 4);
    if !known_tables || components.len() != usize::from(count) || header.height == 0 || header.width == 0 {
        return None;
    }
    header.components = components
        .iter()
        .map(|&[_, sampling, table]| Component {
            across: (sampling >> 4).into(),
            down: (sampling & 15).into(),
            quantisation: table.into(),
            dc: 0,
            ac: 0,
        })
        .collect();
    let samplings: Vec<_> = header.components.iter().map(|c| (c.across, c.down)).collect();
    match samplings[..] {
        // A scan of one component has MCUs of one block, whatever its sampling.
        [(1..=4, 1..=4)] => (header.components[0].across, header.components[0].down) = (1, 1),
        [(1, 1) | (2, 1) | (2, 2), (1, 1), (1, 1)] => {}
        _ => return None,
    }
    Some(components.iter().map(|&[name, ..]| name).collect())
}

fn codes<'a>(mut segment: &'a [u8], header: &mut Header<'a>) -> Option<()> {
    while let Some((&kind, rest)) = segment.split_first() {
        let (counts, rest) = rest.split_first_chunk::<16>()?;
        let count = counts.iter().map(|&count| usize::from(count)).sum();
        let (symbols, rest) = rest.split_at_checked(count)?;
        let tables = if kind >> 4 == 0 { &mut header.dc_codes } else { &mut header.ac_codes };
        if kind & 0b1110_1100 != 0 {
            return None;
        }
        tables[usize::from(kind & 3)] = Some(Code { counts, symbols });
        segment = rest;
    }
    Some(())
}

fn quantisation(mut segment: &[u8], header: &mut Header) -> Option<()> {
    while let Some((&kind, rest)) = segment.split_first() {
        let (table, rest) = rest.split_first_chunk::<64>()?;
        // Only 8-bit tables: their high half of the byte is 0.
        *header.quantisation.get_mut(usize::from(kind))? = Some(*table);
        segment = rest;
    }
    Some(())
}

fn scan(segment: &[u8], names: &[u8], header: &mut Header) -> Option<()> {
    let (&count, rest) = segment.split_first()?;
    let (selected, &[0, 63, 0]) = rest.split_last_chunk::<3>()? else { return None };
    let (selected, []) = selected.as_chunks::<2>() else { return None };
    if selected.len() != usize::from(count) || selected.len() != names.len() {
        return None;
    }
    for ((&[name, tables], &expected), component) in selected.iter().zip(names).zip(&mut header.components) {
        if name != expected || tables & 0b1100_1100 != 0 {
            return None;
        }
        (component.dc, component.ac) = (usize::from(tables >> 4), usize::from(tables & 3));
    }
    Some(())
}
