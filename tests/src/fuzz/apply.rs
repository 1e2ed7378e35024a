//! `POST /v1/apply`, from its query and its body to the answer: the ops that the query names, of the image as it
//! decodes, pixel by pixel.
//!
//! An input is a query, a line feed, and a body.

use pba_augment::{OpCall, Rgba, Scratch, Sign, apply};
use pba_datasets::{Image, decode, image_size};
use pba_schedules::{MAGNITUDE_MAX, Op};
use pba_server::untrusted;
use pba_wire::{Apply, Query};

use crate::fuzz::{Target, image, jpeg, mend_png};
use crate::parquet_files;

pub(super) const TARGET: Target = Target {
    name: "apply",
    check,
    mend: |bytes| mend(bytes),
    seeds,
    words: &[
        b"op=",
        b"&magnitude=",
        b"&sign=",
        b"-1",
        b"&x=",
        b"&y=",
        b"ops=",
        b"Rotate",
        b"ShearX",
        b"Cutout",
        b"Equalize",
        b"Posterize",
        b"Invert",
        b":9:-1,",
        b"%2B1",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff",
    ],
    bytes_max: 4096,
    mutations: 750,
};

/// Pixels of the largest image that is looked at.
const PIXELS_MAX: usize = 1 << 16;

fn check(bytes: &[u8]) {
    let end = bytes.iter().position(|&byte| byte == b'\n').unwrap_or(bytes.len());
    let (query, body) = (String::from_utf8_lossy(&bytes[..end]), bytes.get(end + 1..).unwrap_or_default());
    let size = image_size(body).ok();
    if size.is_some_and(|size| size.pixels() > PIXELS_MAX) {
        return;
    }
    let answer = untrusted::apply(&query, body);
    let expected =
        calls(&query).zip(decode(body).ok()).and_then(|((calls, (x, y)), Image { shape, pixels })| {
            let (x, y) = (x.unwrap_or(shape.width / 2), y.unwrap_or(shape.height / 2));
            let mut rgba =
                Rgba::from_rgb(shape, &pixels).ok().filter(|_| x < shape.width && y < shape.height)?;
            for (op, magnitude, sign) in calls {
                apply(&OpCall { op, magnitude, sign, centre: (x, y) }, &mut rgba, &mut Scratch::new());
            }
            Some((shape, rgba.as_bytes().to_vec()))
        });
    match (answer, expected) {
        (Ok(answer), Some((shape, pixels))) => {
            let mut reader = png::Decoder::new(std::io::Cursor::new(&answer)).read_info().expect("an image");
            let mut found = vec![0; reader.output_buffer_size().expect("a size")];
            let info = reader.next_frame(&mut found).expect("a whole image");
            assert_eq!((info.height, info.width), (shape.height, shape.width));
            assert!(found == pixels, "other pixels: {query:?}");
        }
        (Err(_), None) => {}
        (Ok(_), None) => panic!("it is answered and should be refused: {query:?}"),
        (Err(error), Some(_)) => panic!("it is refused and should be answered: {query:?}: {error}"),
    }
}

type Calls = (Vec<(Op, u8, Sign)>, (Option<u32>, Option<u32>));

/// The ops of a query as its documentation says.
fn calls(query: &str) -> Option<Calls> {
    let Apply { op, magnitude, sign, x, y, ops } = Apply::from_query(query).ok()?;
    let sign_of = |text: &str| match text {
        "1" | "+1" | " 1" => Some(Sign::Plus),
        "-1" => Some(Sign::Minus),
        _ => None,
    };
    let calls = match (op, ops) {
        (Some(op), None) => {
            let sign = sign.map_or(Some(Sign::Plus), |text| sign_of(&text))?;
            vec![(Op::named(&op)?, magnitude.unwrap_or(0), sign)]
        }
        (None, Some(ops)) if magnitude.is_none() && sign.is_none() => {
            let call = |entry: &str| {
                let parts: Vec<&str> = entry.split(':').collect();
                let level = |text: &str| {
                    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
                    text.parse().ok().filter(|&level: &u8| digits && level <= MAGNITUDE_MAX)
                };
                match parts[..] {
                    [op] => Some((Op::named(op)?, 0, Sign::Plus)),
                    [op, magnitude] => Some((Op::named(op)?, level(magnitude)?, Sign::Plus)),
                    [op, magnitude, sign] => Some((Op::named(op)?, level(magnitude)?, sign_of(sign)?)),
                    _ => None,
                }
            };
            ops.split(',').map(call).collect::<Option<Vec<_>>>().filter(|calls| calls.len() <= 30)?
        }
        _ => return None,
    };
    Some((calls, (x, y)))
}

fn mend(bytes: &mut [u8]) {
    if let Some(end) = bytes.iter().position(|&byte| byte == b'\n')
        && bytes[end + 1..].starts_with(b"\x89PNG\r\n\x1a\n")
    {
        mend_png(&mut bytes[end + 1..]);
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let images = [
        parquet_files::png(5, 4, 1),
        jpeg::encoded(8, 9, (2, 2), 90.0, false, 2),
        image("palette_transparent.png"),
        image("one_pixel.png"),
    ];
    let queries = [
        "op=Rotate&magnitude=5&sign=-1".to_owned(),
        "ops=Rotate:5:-1,Posterize:3,Cutout:9:1".to_owned(),
        "op=Cutout&magnitude=9&x=0&y=1".to_owned(),
        "op=Invert".to_owned(),
        format!("ops={}", Op::ALL.map(|op| format!("{}:7", op.name())).join(",")),
    ];
    let pairs = queries.iter().flat_map(|query| images.iter().map(move |image| (query, image)));
    pairs.map(|(query, image)| [query.as_bytes(), b"\n", image].concat()).collect()
}
