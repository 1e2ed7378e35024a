//! How much the pages of a Parquet column inflate to, looked at before the Parquet reader inflates them.
//!
//! A page says how long it is compressed and how long it is not. The reader takes room for what a page says, and of
//! gzip it inflates as much as there is before it compares. So what a page says is bounded here, and a page that
//! is compressed by gzip is inflated once without keeping it.
//!
//! The footer is walked as well: the reader passes over what it does not know there, element by element, of which there
//! may be as many as a few bytes can say.
//!
//! The header of a page, as the footer, is a Thrift structure in the compact protocol
//! (<https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md>); its fields are listed in
//! `parquet.thrift`.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use ::parquet::basic::Compression;
use ::parquet::file::metadata::ColumnChunkMetaData;
use flate2::read::MultiGzDecoder;

/// Longest page: a writer that closes a page after 1024 rows fills it with photographs of a megabyte.
const PAGE_BYTES_MAX: u64 = 1 << 30;
/// Longest header of a page: it may hold the least and the greatest value.
const HEADER_BYTES_MAX: usize = 16 << 20;
/// Structures and lists within each other, of a header, where there are two, and of a footer, where there are ten.
const DEPTH_MAX: u32 = 16;

/// Checks that a file's footer holds no more than its bytes can: the Parquet reader takes a time in proportion to what
/// lists say that they hold.
///
/// # Errors
/// When it holds more, or the file cannot be read. What else may be wrong with it, the reader says.
pub(super) fn check_footer(file: &File) -> Result<(), String> {
    let bytes = file.metadata().map_err(|error| error.to_string())?.len();
    let Some(end) = bytes.checked_sub(8) else { return Ok(()) };
    let mut tail = [0; 4];
    file.read_exact_at(&mut tail, end).map_err(|error| error.to_string())?;
    let Some(start) = end.checked_sub(u32::from_le_bytes(tail).into()) else { return Ok(()) };
    let mut footer = Vec::new();
    Part { file, start, end }.read_to_end(&mut footer).map_err(|error| error.to_string())?;
    let walked = Thrift(&footer).structure(0, &mut |_, _| {});
    walked.ok_or_else(|| "its footer is damaged".to_owned())
}

/// Checks the pages of a column of a row group.
///
/// # Errors
/// When one is too long, or inflates to more than it says.
pub(super) fn check(file: &File, column: &ColumnChunkMetaData) -> Result<(), String> {
    if column.compression() == Compression::LZ4 {
        // Three different forms go by this name, and in one of them a page says nothing of its length.
        return Err(
            "it is compressed by the outdated LZ4; write it anew with LZ4_RAW, zstd or snappy".to_owned()
        );
    }
    let is_gzip = matches!(column.compression(), Compression::GZIP(_));
    // As the reader has them; they may be anything in a damaged file.
    let first = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
    let place = u64::try_from(first).map_err(|_| format!("its column begins at {first}"))?;
    let length = u64::try_from(column.compressed_size()).map_err(|_| "its column has no length")?;
    let end = place.checked_add(length).ok_or("its column has no end")?;
    check_pages(file, place, end, is_gzip)
}

/// Checks the pages from a place in a file to another.
fn check_pages(file: &File, mut place: u64, end: u64, is_gzip: bool) -> Result<(), String> {
    let mut page = 0;
    while place < end {
        let at = |reason: String| format!("page {page} of a column: {reason}");
        let header = read_header(file, place, end).map_err(at)?;
        let [inflated, compressed] = [header.inflated, header.compressed].map(u64::try_from);
        let (Ok(inflated), Ok(compressed)) = (inflated, compressed) else {
            return Err(at("it has no length".to_owned()));
        };
        if inflated > PAGE_BYTES_MAX {
            return Err(at(format!("{inflated} bytes; allowed are {PAGE_BYTES_MAX}")));
        }
        let start = place + header.bytes as u64;
        place = start
            .checked_add(compressed)
            .filter(|&next| next <= end)
            .ok_or_else(|| at(format!("{compressed} bytes reach beyond the end of its column")))?;
        if is_gzip && header.is_compressed {
            let plain = u64::try_from(header.level_bytes).unwrap_or(u64::MAX);
            let start = start.saturating_add(plain);
            let part = Part { file, start, end: place };
            // One more than there may be.
            let mut inflating = MultiGzDecoder::new(io::BufReader::new(part)).take(inflated + 1);
            // Damage is for the reader to find.
            let found = io::copy(&mut inflating, &mut io::sink()).unwrap_or(0);
            if found.saturating_add(plain) > inflated {
                return Err(at(format!("it inflates to more than the {inflated} bytes that it says")));
            }
        }
        page += 1;
    }
    Ok(())
}

/// A part of a file, from its start to its end.
struct Part<'a> {
    file: &'a File,
    start: u64,
    end: u64,
}

impl Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.start)).unwrap_or(usize::MAX);
        let room = buffer.len().min(left);
        let count = self.file.read_at(&mut buffer[..room], self.start)?;
        self.start += count as u64;
        Ok(count)
    }
}

/// What the header of a page says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Header {
    /// Its own length.
    bytes: usize,
    inflated: i64,
    compressed: i64,
    /// Bytes before those that are compressed.
    level_bytes: i64,
    is_compressed: bool,
}

fn read_header(file: &File, place: u64, end: u64) -> Result<Header, String> {
    let mut room = 256;
    loop {
        let mut bytes = Vec::new();
        let part = Part { file, start: place, end };
        part.take(room as u64).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
        match parse(&bytes) {
            Some(header) => return Ok(header),
            None if bytes.len() < room || room >= HEADER_BYTES_MAX => {
                return Err("its header is damaged".to_owned());
            }
            None => room *= 8,
        }
    }
}

/// Reads a header; none if it is longer than the bytes, or none at all.
fn parse(bytes: &[u8]) -> Option<Header> {
    let mut header = Header { is_compressed: true, ..Header::default() };
    let mut thrift = Thrift(bytes);
    thrift.structure(0, &mut |path, value| match path {
        [2] => header.inflated = value,
        [3] => header.compressed = value,
        // Of a data page of version 2: its levels are not compressed, and perhaps nothing is.
        [8, 5] | [8, 6] => header.level_bytes = header.level_bytes.saturating_add(value),
        [8, 7] => header.is_compressed = value != 0,
        _ => {}
    })?;
    header.bytes = bytes.len() - thrift.0.len();
    Some(header)
}

/// Bytes in Thrift's compact protocol, from the front.
struct Thrift<'a>(&'a [u8]);

impl Thrift<'_> {
    /// Reads a structure, and gives each number in it that is not in a list, with the ids of the fields that it
    /// lies in, at most two.
    fn structure(&mut self, depth: u32, found: &mut dyn FnMut(&[i64], i64)) -> Option<()> {
        if depth > DEPTH_MAX {
            return None;
        }
        let mut id = 0_i64;
        loop {
            let head = self.byte()?;
            if head == 0 {
                return Some(());
            }
            id = match head >> 4 {
                0 => self.number()?,
                step => id.checked_add(step.into())?,
            };
            match head & 15 {
                1 => found(&[id], 1),
                2 => found(&[id], 0),
                4..=6 => found(&[id], self.number()?),
                12 => self.structure(depth + 1, &mut |path, value| {
                    if let [inner] = path {
                        found(&[id, *inner], value);
                    }
                })?,
                kind => self.skip(kind, depth)?,
            }
        }
    }

    fn skip(&mut self, kind: u8, depth: u32) -> Option<()> {
        if depth > DEPTH_MAX {
            return None;
        }
        match kind {
            // In a list, a Boolean is a byte.
            1..=3 => self.take(1),
            4..=6 => self.number().map(drop),
            7 => self.take(8),
            8 => {
                let length = self.varint()?;
                self.take(length)
            }
            9 | 10 => {
                let head = self.byte()?;
                let count = if head >> 4 == 15 { self.varint()? } else { (head >> 4).into() };
                (0..count).try_for_each(|_| self.skip(head & 15, depth + 1))
            }
            12 => self.structure(depth + 1, &mut |_, _| {}),
            13 => self.take(16),
            // Neither a header of a page nor a footer has a map.
            _ => None,
        }
    }

    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    fn take(&mut self, bytes: u64) -> Option<()> {
        self.0 = self.0.get(usize::try_from(bytes).ok()?..)?;
        Some(())
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// A number, in zigzag form.
    fn number(&mut self) -> Option<i64> {
        let value = self.varint()?;
        Some((value >> 1) as i64 ^ -((value & 1) as i64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_that_say_too_much_are_refused() {
        let mut file = tempfile::tempfile().unwrap();
        // 2^30 + 1 bytes, of which 2 are compressed.
        let page = [0x15, 0, 0x15, 0x82, 0x80, 0x80, 0x80, 0x08, 0x15, 4, 0, 1, 2];
        io::Write::write_all(&mut file, &page).unwrap();
        let refused = check_pages(&file, 0, page.len() as u64, false).unwrap_err();
        assert_eq!(refused, "page 0 of a column: 1073741825 bytes; allowed are 1073741824");
        let short = check_pages(&file, 0, page.len() as u64 - 3, false).unwrap_err();
        assert_eq!(short, "page 0 of a column: its header is damaged");
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, &[0x15, 0, 0x15, 8, 0x15, 4, 0, 1, 2]).unwrap();
        assert_eq!(check_pages(&file, 0, 9, false), Ok(()));
        let beyond = check_pages(&file, 0, 8, false).unwrap_err();
        assert_eq!(beyond, "page 0 of a column: 2 bytes reach beyond the end of its column");
    }

    #[test]
    fn a_footer_that_says_it_holds_more_than_its_bytes_is_refused() {
        let check = |footer: &[u8]| {
            let mut file = tempfile::tempfile().unwrap();
            let length = (footer.len() as u32).to_le_bytes();
            io::Write::write_all(&mut file, &[b"PAR1", footer, &length, b"PAR1"].concat()).unwrap();
            check_footer(&file)
        };
        // Field 14: a list of two billion Booleans, as the fuzzer found one; of none; and of two, a byte each.
        let refused = Err("its footer is damaged".to_owned());
        assert_eq!(check(&[0xe9, 0xf2, 0xff, 0xff, 0xff, 0xff, 0x07, 0]), refused);
        assert_eq!(check(&[0xe9, 0x02, 0]), Ok(()));
        assert_eq!(check(&[0xe9, 0x22, 1, 2, 0]), Ok(()));
        // In lists of lists, and structures that end at once.
        assert_eq!(check(&[0xe9, 0x19, 0xf2, 0xff, 0xff, 0xff, 0xff, 0x07, 0]), refused);
        assert_eq!(check(&[0xe9, 0xfc, 0xff, 0xff, 0xff, 0xff, 0x07, 0, 0, 0]), refused);
        assert_eq!(check(&[0xeb, 0xff, 0xff, 0xff, 0xff, 0x07, 0x11, 0]), refused);
    }

    #[test]
    fn headers_are_read_as_they_are_written() {
        // type 0, 1000 bytes, 300 compressed, a data page of 10 values with statistics.
        let header = [
            0x15, 0, 0x15, 0xd0, 0x0f, 0x15, 0xd8, 0x04, 0x2c, 0x15, 20, 0x15, 0, 0x15, 6, 0x15, 6, 0x1c,
            0x18, 2, 7, 7, 0, 0, 0,
        ];
        let expected =
            Header { bytes: 25, inflated: 1000, compressed: 300, level_bytes: 0, is_compressed: true };
        assert_eq!(parse(&[&header[..], &[9; 40]].concat()), Some(expected));
        for length in 0..header.len() {
            assert_eq!(parse(&header[..length]), None, "cut to {length}");
        }
        // Version 2: field 8, levels of 3 and 4 bytes, not compressed.
        let header = [0x15, 6, 0x15, 40, 0x15, 38, 0x5c, 0x55, 6, 0x15, 8, 0x12, 0, 0];
        let expected =
            Header { bytes: 14, inflated: 20, compressed: 19, level_bytes: 7, is_compressed: false };
        assert_eq!(parse(&header), Some(expected));
        // Whatever it is, it ends.
        for first in 0..=u8::MAX {
            for second in 0..=u8::MAX {
                let _ =
                    parse(&[first, second, 0x9c, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f, 1, 2, 3]);
            }
        }
    }
}
