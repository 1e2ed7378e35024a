//! Encoded image in, RGB pixels out.
//!
//! The first bytes tell the format, never a name. JPEG goes through libjpeg-turbo's
//! decoder as MozJPEG ships it, with the accurate integer DCT and smooth chroma upsampling, which gives
//! exactly the bytes that Pillow gives. Its plain C form is built, so every machine decodes alike.

use std::cell::Cell;
use std::io::{self, BufRead, Cursor, Read, Seek, SeekFrom};
use std::panic::{AssertUnwindSafe, catch_unwind};

use mozjpeg::{ColorSpace, Decompress};
use pba_types::ImageShape;

use crate::decode::work::check_scans;

/// Largest side of an image, in pixels. The decoders' buffers stay below 200 MB with it.
pub const IMAGE_SIDE_MAX: u32 = 4096;
/// Largest encoded image, in bytes. A 4096 x 4096 PNG of noise is 50 MB.
pub const ENCODED_BYTES_MAX: usize = 64 << 20;
/// Bytes of a PNG's image data after those that the last row needed: some encoders write some. They inflate to
/// 67 MB at most.
const TRAILING_BYTES_MAX: usize = 64 << 10;

/// A decoded image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Its size.
    pub shape: ImageShape,
    /// RGB, row by row: height * width * 3 bytes.
    pub pixels: Vec<u8>,
}

/// Why some bytes cannot be decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// A size other than the caller needs.
    #[error(
        "image is {}x{} (height x width); expected {}x{}",
        found.height, found.width, expected.height, expected.width
    )]
    OtherSize {
        /// The size of the image.
        found: ImageShape,
        /// The size that was needed.
        expected: ImageShape,
    },
    /// Anything else: no image that we read, damaged, too large, or without what is needed of it.
    #[error("image {0}")]
    Refused(String),
}

/// Decodes a JPEG or PNG image to RGB.
///
/// Grayscale becomes three equal channels, palettes are looked up, of 16-bit samples the high
/// byte is taken, alpha is dropped, and CMYK is converted as Pillow does it. Colour profiles and
/// orientation tags are ignored.
///
/// # Errors
/// When the bytes are not a whole image, it is larger than [`IMAGE_SIDE_MAX`], or decoding it would be more work
/// than an honest image of its size is: a JPEG image of more than 100 scans, or of fewer that go over more than
/// 2^29 pixels in all, or a PNG image with data after its last row.
pub fn decode(bytes: &[u8]) -> Result<Image, ImageError> {
    decode_reduced(bytes, None, 1)
}

/// As [`decode`], reduced to 1/1, 1/2, 1/4 or 1/8 of its size, rounded up. An image of another size than
/// `expected` is refused before its pixels are read.
pub(crate) fn decode_reduced(
    bytes: &[u8],
    expected: Option<ImageShape>,
    reduction: u32,
) -> Result<Image, ImageError> {
    let codec = Codec::of(bytes)?;
    codec.guard(|| match codec {
        Codec::Jpeg => jpeg(bytes, expected, reduction),
        Codec::Png => png(bytes, expected).map(|image| average(image, reduction)),
    })
}

/// The size of a JPEG or PNG image, from its header.
///
/// # Errors
/// When there is no whole header, or the image is larger than [`IMAGE_SIDE_MAX`].
pub fn image_size(bytes: &[u8]) -> Result<ImageShape, ImageError> {
    let codec = Codec::of(bytes)?;
    codec.guard(|| match codec {
        Codec::Jpeg => check_size(jpeg_size(&Decompress::new_reader(Unpadded(bytes))?), None),
        Codec::Png => check_size(png_size(png_decoder(Cursor::new(bytes)).read_info()?.info()), None),
    })
}

/// Whether an image may have this size.
pub(crate) fn are_sides_allowed(ImageShape { height, width }: ImageShape) -> bool {
    [height, width].iter().all(|side| (1..=IMAGE_SIDE_MAX).contains(side))
}

/// What the first bytes say.
#[derive(Clone, Copy)]
pub(crate) enum Codec {
    Jpeg,
    Png,
}

impl Codec {
    pub(crate) fn of(bytes: &[u8]) -> Result<Codec, ImageError> {
        if bytes.len() > ENCODED_BYTES_MAX {
            let reason = format!("of {} encoded bytes; allowed are {ENCODED_BYTES_MAX}", bytes.len());
            return Err(ImageError::Refused(reason));
        }
        if bytes.starts_with(&[0xff, 0xd8, 0xff]) {
            return Ok(Codec::Jpeg);
        }
        if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
            return Ok(Codec::Png);
        }
        let beginning = match bytes {
            [] => "nothing".to_owned(),
            bytes => bytes.iter().take(8).map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" "),
        };
        let reason = format!("begins with {beginning}; formats that are read are JPEG and PNG");
        Err(ImageError::Refused(reason))
    }

    /// Runs a decoder. libjpeg reports a fatal error by unwinding; for PNG this is a last resort.
    fn guard<T>(self, decoder: impl FnOnce() -> Result<T, Failure>) -> Result<T, ImageError> {
        let format = match self {
            Codec::Jpeg => "JPEG",
            Codec::Png => "PNG",
        };
        catch_unwind(AssertUnwindSafe(decoder))
            .unwrap_or_else(|panic| {
                let reason = panic.downcast_ref::<String>().map(String::as_str);
                let reason = reason
                    .or_else(|| panic.downcast_ref::<&str>().copied())
                    .unwrap_or("the decoder panicked");
                let reason = match reason.trim_start_matches("libjpeg fatal error: ") {
                    // `Unpadded` fails for no other reason.
                    "Input file read error" => "it ends too early",
                    other => other,
                };
                Err(Failure::Damaged(reason.to_owned()))
            })
            .map_err(|failure| match failure {
                Failure::Image(error) => error,
                Failure::Damaged(reason) => {
                    ImageError::Refused(format!("does not decode as {format}: {reason}"))
                }
            })
    }
}

enum Failure {
    Image(ImageError),
    Damaged(String),
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::Damaged(error.to_string())
    }
}

fn check_size(found: ImageShape, expected: Option<ImageShape>) -> Result<ImageShape, Failure> {
    if !are_sides_allowed(found) {
        let ImageShape { height, width } = found;
        let allowed = format!("allowed are sides of 1..={IMAGE_SIDE_MAX} pixels");
        let reason = format!("is {height}x{width} (height x width); {allowed}");
        return Err(Failure::Image(ImageError::Refused(reason)));
    }
    match expected {
        Some(expected) if expected != found => Err(Failure::Image(ImageError::OtherSize { found, expected })),
        _ => Ok(found),
    }
}

fn jpeg_size(decoder: &Decompress<impl BufRead>) -> ImageShape {
    ImageShape { height: decoder.height() as u32, width: decoder.width() as u32 }
}

fn png_size(info: &png::Info<'_>) -> ImageShape {
    ImageShape { height: info.height, width: info.width }
}

fn jpeg(bytes: &[u8], expected: Option<ImageShape>, reduction: u32) -> Result<Image, Failure> {
    let mut decoder = Decompress::new_reader(Unpadded(bytes))?;
    let size = check_size(jpeg_size(&decoder), expected)?;
    check_scans(bytes, size).map_err(|reason| Failure::Image(ImageError::Refused(reason)))?;
    if reduction > 1 {
        decoder.scale((8 / reduction) as u8); // eighths
    }
    let is_cmyk = matches!(decoder.color_space(), ColorSpace::JCS_CMYK | ColorSpace::JCS_YCCK);
    let mut decoder = if is_cmyk { decoder.to_colorspace(ColorSpace::JCS_CMYK)? } else { decoder.rgb()? };
    let shape = ImageShape { height: decoder.height() as u32, width: decoder.width() as u32 };
    let mut pixels = vec![0; shape.pixels() * if is_cmyk { 4 } else { 3 }];
    decoder.read_scanlines_into(&mut pixels)?;
    if is_cmyk {
        pixels = pixels.as_chunks::<4>().0.iter().copied().flat_map(cmyk_to_rgb).collect();
    }
    Ok(Image { shape, pixels })
}

/// Inks as Adobe stores them, inverted, to RGB, in Pillow's rounding.
fn cmyk_to_rgb([c, m, y, k]: [u8; 4]) -> [u8; 3] {
    let white = u32::from(k); // 255 minus the black ink
    [c, m, y].map(|stored| {
        let product = (255 - u32::from(stored)) * white + 128;
        (white - ((product >> 8) + product) / 256) as u8
    })
}

/// Bytes that end with an error, where libjpeg would fill up with grey pixels.
struct Unpadded<'a>(&'a [u8]);

impl Read for Unpadded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl BufRead for Unpadded<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.0.is_empty() { Err(io::Error::other("cut off")) } else { Ok(self.0) }
    }

    fn consume(&mut self, amount: usize) {
        self.0 = &self.0[amount..];
    }
}

/// A decoder that reads nothing but the image: a colour profile is inflated as soon as it is found, up to a
/// thousand times its length.
fn png_decoder<R: BufRead + Seek>(bytes: R) -> png::Decoder<R> {
    // Twice the decoded size of the largest image in 16 bits is enough for anything honest.
    let limits = png::Limits { bytes: 512 << 20 };
    let mut decoder = png::Decoder::new_with_limits(bytes, limits);
    decoder.set_ignore_iccp_chunk(true);
    decoder.set_ignore_text_chunk(true);
    decoder
}

fn png(bytes: &[u8], expected: Option<ImageShape>) -> Result<Image, Failure> {
    let left = Cell::new(bytes.len());
    let mut decoder = png_decoder(Rationed { bytes: Cursor::new(bytes), left: &left });
    decoder.set_transformations(png::Transformations::EXPAND | png::Transformations::STRIP_16);
    let mut reader = decoder.read_info()?;
    let shape = check_size(png_size(reader.info()), expected)?;
    let length = reader.output_buffer_size().ok_or_else(|| Failure::Damaged("too large".into()))?;
    let mut samples = vec![0; length];
    if reader
        .info()
        .frame_control()
        .is_some_and(|frame| (frame.height, frame.width) != (shape.height, shape.width))
    {
        return Err(Failure::Damaged("its frame is smaller than the image".into()));
    }
    let (colors, depth) = reader.output_color_type();
    let row_bytes =
        reader.output_line_size(shape.width).ok_or_else(|| Failure::Damaged("too large".into()))?;
    if reader.info().interlaced {
        let pixel_bits = (colors.samples() * depth as usize) as u8;
        for _ in 0..interlaced_rows(shape) {
            let row = reader.next_interlaced_row()?;
            let row = row.ok_or_else(|| Failure::Damaged("it has too few rows".into()))?;
            if let png::InterlaceInfo::Adam7(place) = row.interlace() {
                png::expand_interlaced_row(&mut samples, row_bytes, row.data(), place, pixel_bits);
            }
        }
    } else {
        for row in samples.chunks_exact_mut(row_bytes) {
            reader.read_row(row)?;
        }
    }
    // The rest is only read for its checksum. What inflates to more than the image is no honest one.
    left.set(TRAILING_BYTES_MAX);
    reader.read_row(&mut vec![0; row_bytes])?;
    let pixels: Vec<u8> = match colors {
        png::ColorType::Rgb => samples,
        png::ColorType::Rgba => {
            samples.as_chunks::<4>().0.iter().flat_map(|&[r, g, b, _]| [r, g, b]).collect()
        }
        png::ColorType::Grayscale => samples.iter().flat_map(|&gray| [gray; 3]).collect(),
        png::ColorType::GrayscaleAlpha => {
            samples.as_chunks::<2>().0.iter().flat_map(|&[gray, _]| [gray; 3]).collect()
        }
        png::ColorType::Indexed => return Err(Failure::Damaged("its palette was not looked up".into())),
    };
    Ok(Image { shape, pixels })
}

/// Rows of all passes of an interlaced PNG image.
fn interlaced_rows(ImageShape { height, width }: ImageShape) -> u32 {
    // First column and step, first row and step of each pass (PNG specification, 8.2).
    const PASSES: [[u32; 4]; 7] =
        [[0, 8, 0, 8], [4, 8, 0, 8], [0, 4, 4, 8], [2, 4, 0, 4], [0, 2, 2, 4], [1, 2, 0, 2], [0, 1, 1, 2]];
    let rows = |[left, _, top, down]: [u32; 4]| match left < width {
        true => height.saturating_sub(top).div_ceil(down),
        false => 0,
    };
    PASSES.into_iter().map(rows).sum()
}

/// Bytes of a file, of which so many may still be taken.
struct Rationed<'a> {
    bytes: Cursor<&'a [u8]>,
    left: &'a Cell<usize>,
}

impl Read for Rationed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for Rationed<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let rest = self.bytes.fill_buf()?;
        match rest.len().min(self.left.get()) {
            0 if !rest.is_empty() => Err(io::Error::other("it has data after its last row")),
            count => Ok(&rest[..count]),
        }
    }

    fn consume(&mut self, amount: usize) {
        self.bytes.consume(amount);
        self.left.set(self.left.get() - amount);
    }
}

impl Seek for Rationed<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.bytes.seek(to)
    }
}

/// Means of squares with sides of `reduction` pixels, or of the part of them that is in the image,
/// rounded.
fn average(image: Image, reduction: u32) -> Image {
    if reduction == 1 {
        return image;
    }
    let side = reduction as usize;
    let ImageShape { height, width } = image.shape;
    let shape = ImageShape { height: height.div_ceil(reduction), width: width.div_ceil(reduction) };
    let rows: Vec<&[u8]> = image.pixels.chunks(3 * width as usize).collect();
    let mut pixels = Vec::with_capacity(shape.rgb_bytes());
    for rows in rows.chunks(side) {
        for column in (0..width as usize).step_by(side) {
            let columns = column..(column + side).min(width as usize);
            let count = (rows.len() * columns.len()) as u32;
            for channel in 0..3 {
                let of_row =
                    |row: &&[u8]| columns.clone().map(|x| u32::from(row[3 * x + channel])).sum::<u32>();
                pixels.push(((rows.iter().map(of_row).sum::<u32>() + count / 2) / count) as u8);
            }
        }
    }
    Image { shape, pixels }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_the_image_is_inflated() {
        let mut info = png::Info::with_size(1, 1);
        info.color_type = png::ColorType::Rgb;
        info.icc_profile = Some(vec![0; 32 << 20].into());
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::with_info(&mut bytes, info).unwrap();
        encoder.add_ztxt_chunk("Comment".to_owned(), " ".repeat(32 << 20)).unwrap();
        encoder.write_header().unwrap().write_image_data(&[1, 2, 3]).unwrap();
        assert!(bytes.len() < 1 << 20, "{} bytes inflate to 64 MiB", bytes.len());

        let reader = png_decoder(Cursor::new(&bytes)).read_info().unwrap();
        let info = reader.info();
        assert!(info.icc_profile.is_none() && info.compressed_latin1_text.is_empty());
        let image = decode(&bytes).unwrap();
        assert_eq!((image.shape, &image.pixels[..]), (ImageShape { height: 1, width: 1 }, &[1, 2, 3][..]));
        assert_eq!(image_size(&bytes).unwrap(), image.shape);
    }
}
