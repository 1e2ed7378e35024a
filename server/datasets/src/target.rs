//! Where imported images go: into a packed file, as pixels when all share one size, else encoded.

use std::path::Path;

use crate::encoded::{EncodedPacker, Seen};
use crate::error::DatasetError;
use crate::image::{self, Image, ImageError};
use crate::import;
use crate::pack::{PackSpec, Packer};

/// Decoded pixels held at a time, about.
const DECODED_BYTES: usize = 64 << 20;

/// Packs encoded images, which `feed` gives to the target, all and in order.
///
/// It is called once when all images share one size. At the first image of another size it is
/// stopped, and called anew for images of different sizes. Photographs differ early, so that
/// costs nothing to speak of; a first look at all sizes would read every dataset twice.
///
/// # Errors
/// What `feed` fails with, a label that names no class, a file that cannot be written; and after
/// all images were looked at, the first that does not decode.
pub(crate) fn pack(
    to: &Path,
    spec: &PackSpec,
    feed: &dyn Fn(&mut Target<'_>) -> Result<(), Stop>,
) -> Result<(), DatasetError> {
    let mut target = Target::new(to, spec, Form::Decoded { size: None, packer: None });
    let fed = match feed(&mut target) {
        Err(Stop::OtherSize) => {
            target = Target::new(to, spec, Form::Encoded { packer: None });
            feed(&mut target)
        }
        fed => fed,
    };
    match fed {
        Ok(()) => target.finish(),
        Err(Stop::Failed(error)) => Err(error),
        Err(Stop::OtherSize) => unreachable!("encoded images may be of any size"),
    }
}

/// Why no more rows are wanted.
pub(crate) enum Stop {
    /// An image of another size than those before.
    OtherSize,
    /// An error that ends the import.
    Failed(DatasetError),
}

impl From<DatasetError> for Stop {
    fn from(error: DatasetError) -> Stop {
        Stop::Failed(error)
    }
}

/// An encoded image, or the reason why there is none.
pub(crate) type Cell<'a> = Result<&'a [u8], String>;

/// Where an image was read from: a file, and its row if it holds many.
pub(crate) type Place = (String, Option<u64>);

/// A packed file in the making, until the first bad image; then images are only counted.
pub(crate) struct Target<'a> {
    to: &'a Path,
    spec: &'a PackSpec,
    form: Form,
    bad: u64,
    first_bad: Option<(Place, String)>,
}

enum Form {
    Decoded { size: Option<(u32, u32)>, packer: Option<Packer> },
    Encoded { packer: Option<EncodedPacker> },
}

impl Target<'_> {
    fn new<'a>(to: &'a Path, spec: &'a PackSpec, form: Form) -> Target<'a> {
        Target { to, spec, form, bad: 0, first_bad: None }
    }

    /// Takes the next images with their labels; `place` says where each comes from.
    pub(crate) fn add(
        &mut self,
        cells: &[Cell<'_>],
        labels: &[i64],
        place: impl Fn(usize) -> Place,
    ) -> Result<(), Stop> {
        assert_eq!(cells.len(), labels.len(), "labels of so many images");
        match self.form {
            Form::Decoded { .. } => self.add_decoded(cells, labels, place),
            Form::Encoded { .. } => self.add_encoded(cells, labels, place),
        }
    }

    fn add_decoded(
        &mut self,
        cells: &[Cell<'_>],
        labels: &[i64],
        place: impl Fn(usize) -> Place,
    ) -> Result<(), Stop> {
        let mut start = 0;
        while start < cells.len() {
            let Form::Decoded { size, .. } = self.form else { unreachable!("add() chose by it") };
            // The first image alone says how large they are, and so how many fit in memory.
            let count = size.map_or(1, |(h, w)| DECODED_BYTES / (h as usize * w as usize * 3)).max(1);
            let now = &cells[start..cells.len().min(start + count)];
            let images = import::in_parallel(now.len(), import::threads(), |i| match &now[i] {
                Ok(bytes) => image::decode_sized(bytes, size).map_err(Some),
                Err(_) => Err(None),
            });
            for (row, image) in (start..).zip(images) {
                match image {
                    Ok(image) => self.push_decoded(&image, labels[row])?,
                    Err(Some(ImageError::OtherSize { .. })) => return Err(Stop::OtherSize),
                    Err(Some(error)) => self.note_bad(|| (place(row), error.to_string())),
                    Err(None) => self.note_bad(|| (place(row), reason(&cells[row]))),
                }
            }
            start += now.len();
        }
        Ok(())
    }

    fn push_decoded(&mut self, image: &Image, label: i64) -> Result<(), DatasetError> {
        let Form::Decoded { size, packer } = &mut self.form else { unreachable!("add() chose by it") };
        let shape = *size.get_or_insert((image.height, image.width));
        if self.bad > 0 {
            return Ok(());
        }
        let packer = match packer {
            Some(packer) => packer,
            empty => empty.insert(Packer::create(self.to, shape, self.spec.clone())?),
        };
        packer.push(&image.pixels, label)
    }

    fn add_encoded(
        &mut self,
        cells: &[Cell<'_>],
        labels: &[i64],
        place: impl Fn(usize) -> Place,
    ) -> Result<(), Stop> {
        // Every thread holds the pixels of one image at a time.
        let seen = import::in_parallel(cells.len(), import::threads(), |i| match &cells[i] {
            Ok(bytes) => image::decode(bytes)
                .map(|image| (*bytes, Seen::of((image.height, image.width), &image.pixels)))
                .map_err(|error| error.to_string()),
            Err(_) => Err(reason(&cells[i])),
        });
        for (row, seen) in seen.into_iter().enumerate() {
            match seen {
                Ok((bytes, seen)) => self.push_encoded(bytes, &seen, labels[row])?,
                Err(reason) => self.note_bad(|| (place(row), reason)),
            }
        }
        Ok(())
    }

    fn push_encoded(&mut self, bytes: &[u8], seen: &Seen, label: i64) -> Result<(), DatasetError> {
        let Form::Encoded { packer } = &mut self.form else { unreachable!("add() chose by it") };
        if self.bad > 0 {
            return Ok(());
        }
        let packer = match packer {
            Some(packer) => packer,
            empty => empty.insert(EncodedPacker::create(self.to, self.spec.clone())?),
        };
        packer.push(bytes, seen, label)
    }

    fn note_bad(&mut self, what: impl FnOnce() -> (Place, String)) {
        self.bad += 1;
        self.first_bad.get_or_insert_with(what);
        // What was written is of no use any more.
        match &mut self.form {
            Form::Decoded { packer, .. } => *packer = None,
            Form::Encoded { packer } => *packer = None,
        }
    }

    fn finish(self) -> Result<(), DatasetError> {
        match (self.first_bad, self.form) {
            (Some(((file, row), reason)), _) => {
                Err(DatasetError::Image { file, row, reason, bad: self.bad, rows: self.spec.rows })
            }
            (None, Form::Decoded { packer: Some(packer), .. }) => packer.finish(),
            (None, Form::Encoded { packer: Some(packer) }) => packer.finish(),
            (None, _) => unreachable!("a split has at least one row"),
        }
    }
}

fn reason(cell: &Cell<'_>) -> String {
    cell.clone().err().unwrap_or_default()
}
