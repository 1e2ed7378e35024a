//! How much work an image is, before any of it is done.
//!
//! A progressive JPEG of 34 bytes more is a scan more, which goes over every block of the image. So scans are
//! counted from the markers, and so are pixels times scans.

use pba_types::ImageShape;

/// Most scans of a JPEG image. Encoders write 10 of a progressive one by default, MozJPEG up to some 15, and all
/// that successive approximation allows, one bit of one component after another, is fewer than 60.
pub(crate) const SCANS_MAX: u32 = 100;
/// Most pixels times scans: the largest image in 32 scans, which takes less than a second without content.
pub(crate) const SCANNED_PIXELS_MAX: u64 = 32 * 4096 * 4096;

/// Counts the scans of a JPEG file, up to its end of image, as libjpeg would meet them; those after `max` are
/// not looked for.
pub(crate) fn scans(bytes: &[u8], max: u32) -> u32 {
    let (mut rest, mut scans) = (bytes, 0);
    // A marker is a 0xff, perhaps more of them, and a byte that is neither 0 nor 0xff; in between lie the data of
    // a scan.
    while let Some(place) = memchr::memchr(0xff, rest) {
        rest = &rest[place + 1..];
        let Some(&marker) = rest.first() else { break };
        match marker {
            0xff => continue,
            // Stuffing, and what has no length: restarts and the like.
            0x00..=0xbf | 0xd0..=0xd8 => rest = &rest[1..],
            0xd9 => break,
            _ => {
                scans += u32::from(marker == 0xda);
                if scans > max {
                    break;
                }
                let length = rest.get(1..3).map_or(2, |length| u16::from_be_bytes([length[0], length[1]]));
                // A length below 2 is an error that libjpeg reports.
                rest = rest.get(1 + usize::from(length.max(2))..).unwrap_or_default();
            }
        }
    }
    scans
}

/// Checks that the scans of a JPEG image may be decoded.
///
/// # Errors
/// When there are too many, with what is allowed.
pub(crate) fn check_scans(bytes: &[u8], ImageShape { height, width }: ImageShape) -> Result<(), String> {
    let pixels = u64::from(height) * u64::from(width);
    let allowed = u64::from(SCANS_MAX).min(SCANNED_PIXELS_MAX / pixels.max(1)) as u32;
    let found = scans(bytes, allowed);
    if found <= allowed {
        return Ok(());
    }
    // All of them, for the message; this is a fast look at the file.
    let found = scans(bytes, u32::MAX);
    Err(format!(
        "has {found} scans of {height}x{width} (height x width); allowed are 1..={allowed} at this size"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scans_are_counted_up_to_the_end() {
        let file = |parts: &[&[u8]]| [&[0xff, 0xd8][..], &parts.concat()].concat();
        let scan: &[u8] = &[0xff, 0xda, 0, 4, 1, 2, 7, 0xff, 0x00, 8, 0xff, 0xd0, 9];
        let end: &[u8] = &[0xff, 0xd9];
        // Its thumbnail has scans, too.
        let exif: &[u8] = &[0xff, 0xe1, 0, 6, 0xff, 0xda, 0xff, 0xda];
        assert_eq!(scans(&file(&[end]), 10), 0);
        assert_eq!(scans(&file(&[scan, end]), 10), 1);
        assert_eq!(scans(&file(&[exif, scan, exif, &[0xff, 0xff], scan, end, scan]), 10), 2);
        assert_eq!(scans(&file(&[scan, scan, scan, scan]), 2), 3, "it stops counting");
        for length in 0..20 {
            scans(&file(&[exif, scan])[..length], 10);
        }
    }

    #[test]
    fn what_is_allowed_depends_on_the_size() {
        let file = [0xff, 0xd8].iter().chain([0xff, 0xda, 0, 2].iter().cycle().take(4 * 60)).copied();
        let file: Vec<u8> = file.collect();
        let check = |side| check_scans(&file, ImageShape { height: side, width: side });
        assert_eq!(check(1000), Ok(()));
        assert_eq!(
            check(4096),
            Err("has 60 scans of 4096x4096 (height x width); allowed are 1..=32 at this size".to_owned())
        );
    }
}
