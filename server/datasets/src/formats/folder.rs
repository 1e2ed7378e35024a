//! Folders of images: `split/class/file.jpg`, or `class/file.jpg`, which is all for training.
//!
//! Classes are named by their folders, in the order of the names, over all splits. Within a class,
//! files are in the order of the folders that they lie in, then of their names; both as torchvision's
//! `ImageFolder` has them, so labels and indices agree with it. Files without one of its extensions are
//! skipped, as are hidden ones.
//!
//! Links are followed while they stay below the dataset's folder; one that leads out of it is an
//! error, so that serving a folder never serves more than that folder.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::Metadata;
use std::io::Read;
use std::path::{Path, PathBuf};

use pba_files::FileState;
use pba_types::SplitName;

use crate::cache::Key;
use crate::decode::image::ENCODED_BYTES_MAX;
use crate::error::{DatasetError, Fault};
use crate::formats::files::label;
use crate::formats::format::{Format, Found, Source};
use crate::packed::spec::PackSpec;
use crate::packed::target::{Cell, Stop, Target};
use crate::parallel::in_parallel;

pub(crate) const FORMAT: Format = Format {
    name: "folder",
    looked_for: "folders of JPEG and PNG images (train/CLASS/, val/CLASS/, test/CLASS/; or CLASS/)",
    file: None,
    find,
};

/// Entries of all folders together: ImageNet-21k, the largest that is commonly had as files, has
/// 14 million. It also ends a walk through links in a circle.
const ENTRIES_MAX: u64 = 1 << 24;
/// Folders within folders of a class.
const DEPTH_MAX: u32 = 8;
/// Files read at a time, and their bytes, about.
const READ_FILES: usize = 1024;
const READ_BYTES: u64 = 64 << 20;
/// What torchvision takes for an image. Some of these we do not read; they are reported as bad images
/// rather than skipped.
const EXTENSIONS: [&str; 9] = ["jpg", "jpeg", "png", "ppm", "bmp", "pgm", "tif", "tiff", "webp"];

/// The images of a dataset, found but not read.
struct ImageFolder {
    root: PathBuf,
    /// The folder of each split, and what is in it.
    splits: BTreeMap<SplitName, (PathBuf, Result<Listing, DatasetError>)>,
    classes: Vec<String>,
}

/// The images of a split.
#[derive(Default)]
struct Listing {
    /// Folders that hold images.
    folders: Vec<PathBuf>,
    images: Vec<ImageFile>,
    /// Its classes' names; an image's class is a position in this list.
    classes: Vec<String>,
}

struct ImageFile {
    /// Position in the listing's folders.
    folder: u32,
    class: u32,
    name: OsString,
    state: FileState,
}

impl Listing {
    fn path(&self, image: &ImageFile) -> PathBuf {
        self.folders[image.folder as usize].join(&image.name)
    }
}

/// The images in a folder, if it is one of images.
fn find(root: &Path) -> Result<Option<Found>, DatasetError> {
    let mut walk = Walk {
        root: root.to_owned(),
        resolved: root.canonicalize().map_err(DatasetError::io(root, "resolve the path"))?,
        entries: 0,
    };
    let folders = walk.folders(root)?;
    if folders.is_empty() {
        return Ok(None);
    }
    let named: Vec<(SplitName, &PathBuf)> =
        folders.iter().filter_map(|folder| Some((split_named(folder.file_name()?)?, folder))).collect();
    // A folder named `train` that has no folders in it is a class, of trains. One that cannot be listed is
    // reported for its split alone.
    let is_by_split =
        named.iter().any(|(_, folder)| !walk.folders(folder).is_ok_and(|inner| inner.is_empty()));
    let mut splits = BTreeMap::new();
    if is_by_split {
        for (name, folder) in named {
            let listing = match splits.contains_key(&name) {
                true => Err(walk.refuse(folder, format!("a second folder of split {name}"))),
                false => walk.classes(folder),
            };
            splits.insert(name, (folder.clone(), listing));
        }
    } else {
        let listing = walk.classes(root);
        if listing.as_ref().is_ok_and(|listing| listing.images.is_empty()) {
            return Ok(None);
        }
        splits.insert(SplitName::Train, (root.to_owned(), listing));
    }
    let listings = splits.values().flat_map(|(_, listing)| listing);
    let classes: BTreeSet<&String> = listings.flat_map(|listing| &listing.classes).collect();
    let classes = classes.into_iter().cloned().collect();
    Ok(Some(Found::Source(Box::new(ImageFolder { root: root.to_owned(), splits, classes }))))
}

/// The split that a folder is named after. Only these exact words; any other name is a class.
fn split_named(name: &OsStr) -> Option<SplitName> {
    match name.to_str()?.to_lowercase().as_str() {
        "train" | "training" => Some(SplitName::Train),
        "val" | "valid" | "validation" => Some(SplitName::Val),
        "test" | "testing" => Some(SplitName::Test),
        _ => None,
    }
}

fn is_image(name: &OsStr) -> bool {
    let extension = Path::new(name).extension().and_then(OsStr::to_str);
    extension.is_some_and(|found| EXTENSIONS.iter().any(|known| found.eq_ignore_ascii_case(known)))
}

/// A walk through the folders of a dataset.
struct Walk {
    root: PathBuf,
    /// The root without links.
    resolved: PathBuf,
    entries: u64,
}

/// A folder, or a file that is named as an image.
struct Entry {
    path: PathBuf,
    metadata: Metadata,
}

impl Walk {
    fn refuse(&self, file: &Path, reason: String) -> DatasetError {
        DatasetError::unreadable(label(&self.root, file), reason)
    }

    /// Folders in a folder, sorted by name.
    fn folders(&mut self, folder: &Path) -> Result<Vec<PathBuf>, DatasetError> {
        let entries = self.list(folder)?.into_iter();
        Ok(entries.filter(|entry| entry.metadata.is_dir()).map(|entry| entry.path).collect())
    }

    /// Folders and images in a folder, sorted by name.
    fn list(&mut self, folder: &Path) -> Result<Vec<Entry>, DatasetError> {
        let io = DatasetError::io(folder, "list it");
        let mut found = Vec::new();
        for entry in folder.read_dir().map_err(&io)? {
            let entry = entry.map_err(&io)?;
            self.entries += 1;
            if self.entries > ENTRIES_MAX {
                return Err(self.refuse(folder, format!("more than {ENTRIES_MAX} entries in all folders")));
            }
            let (path, name) = (entry.path(), entry.file_name());
            if name.to_string_lossy().starts_with('.') {
                continue;
            }
            let entry_type = entry.file_type().map_err(DatasetError::io(&path, "read it"))?;
            if !entry_type.is_dir() && !entry_type.is_symlink() && !is_image(&name) {
                continue;
            }
            let metadata = match entry_type.is_symlink() {
                true => self.follow(&path, &name)?,
                false => Some(entry.metadata().map_err(DatasetError::io(&path, "read it"))?),
            };
            // Neither a socket nor a pipe is an image, whatever its name.
            if let Some(metadata) = metadata.filter(|found| found.is_dir() || found.is_file()) {
                found.push(Entry { path, metadata });
            }
        }
        found.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(found)
    }

    /// What a link leads to, if that is a folder or named as an image.
    fn follow(&self, path: &Path, name: &OsStr) -> Result<Option<Metadata>, DatasetError> {
        let io = DatasetError::io(path, "follow the link");
        let target = match path.canonicalize() {
            Ok(target) => target,
            // A link to nowhere matters only where an image was meant.
            Err(_) if !is_image(name) => return Ok(None),
            Err(error) => return Err(io(error)),
        };
        let metadata = target.metadata().map_err(&io)?;
        if !metadata.is_dir() && !is_image(name) {
            return Ok(None);
        }
        if !target.starts_with(&self.resolved) {
            let reason = format!("a link that leads out of the dataset, to {}", target.display());
            return Err(self.refuse(path, reason));
        }
        Ok(Some(metadata))
    }

    /// The images of a split, in folders by class.
    fn classes(&mut self, folder: &Path) -> Result<Listing, DatasetError> {
        let mut listing = Listing::default();
        for class in self.folders(folder)? {
            let name = class.file_name().and_then(OsStr::to_str);
            let name = name.ok_or_else(|| self.refuse(&class, "the name is not UTF-8 text".into()))?;
            let number = listing.classes.len() as u32;
            listing.classes.push(name.to_owned());
            self.class(class, number, &mut listing)?;
        }
        if listing.classes.is_empty() {
            return Err(self.refuse(folder, "expected a folder for each class in it; there is none".into()));
        }
        Ok(listing)
    }

    /// The images of a class, in folders of any depth.
    fn class(&mut self, folder: PathBuf, class: u32, listing: &mut Listing) -> Result<(), DatasetError> {
        let mut holding = Vec::new();
        let mut waiting = vec![(folder, 0)];
        while let Some((folder, depth)) = waiting.pop() {
            let mut images = Vec::new();
            for Entry { path, metadata } in self.list(&folder)? {
                if metadata.is_dir() {
                    if depth == DEPTH_MAX {
                        let reason = format!("more than {DEPTH_MAX} folders deep in a class");
                        return Err(self.refuse(&path, reason));
                    }
                    waiting.push((path, depth + 1));
                } else if let Some(name) = path.file_name() {
                    let (name, state) = (name.to_owned(), FileState::of(&metadata));
                    images.push(ImageFile { folder: 0, class, name, state });
                }
            }
            if !images.is_empty() {
                holding.push((folder, images));
            }
        }
        // As text, which is how torchvision sorts them: `a-b` stands before `a/c`.
        holding.sort_by(|(one, _), (other, _)| one.as_os_str().cmp(other.as_os_str()));
        for (folder, images) in holding {
            let position = listing.folders.len() as u32;
            listing.folders.push(folder);
            listing.images.extend(images.into_iter().map(|image| ImageFile { folder: position, ..image }));
        }
        Ok(())
    }
}

impl Source for ImageFolder {
    fn splits(&self) -> BTreeMap<SplitName, PathBuf> {
        self.splits.iter().map(|(&name, (folder, _))| (name, folder.clone())).collect()
    }

    fn key(&self) -> Result<Key, DatasetError> {
        let mut key = Key::new(&self.root)?;
        for listing in self.splits.values().flat_map(|(_, listing)| listing) {
            for image in &listing.images {
                key.add(&listing.path(image), image.state);
            }
        }
        // An empty folder is a class, too.
        key.add_text(&self.classes.join("/"));
        Ok(key)
    }

    fn spec(&self, split: SplitName) -> Result<PackSpec, DatasetError> {
        let rows = self.listing(split)?.images.len() as u64;
        if rows == 0 {
            return Err(DatasetError::unreadable(label(&self.root, &self.splits[&split].0), "no rows"));
        }
        let title = self.root.file_name().unwrap_or_default().to_string_lossy();
        Ok(PackSpec { classes: self.classes.clone(), rows, source: format!("image folder {title}, {split}") })
    }

    fn rows(&self, split: SplitName, target: &mut Target<'_>) -> Result<(), Stop> {
        let listing = self.listing(split)?;
        let number = |class| self.classes.binary_search(class).expect("the classes are those of all splits");
        let labels: Vec<i64> = listing.classes.iter().map(|class| number(class) as i64).collect();
        let (images, mut start) = (&listing.images, 0);
        while start < images.len() {
            let mut bytes = 0;
            let fits = |image: &&ImageFile| {
                bytes += image.state.bytes;
                bytes <= READ_BYTES
            };
            let count = images[start..].iter().take(READ_FILES).take_while(fits).count().max(1);
            let now = &images[start..start + count];
            let files = in_parallel(count, |i| read(&listing.path(&now[i]), now[i].state));
            let files = files.into_iter().collect::<Result<Vec<_>, _>>()?;
            let cells: Vec<Cell<'_>> =
                files.iter().map(|file| file.as_deref().map_err(String::clone)).collect();
            let labels: Vec<i64> = now.iter().map(|image| labels[image.class as usize]).collect();
            target.add(&cells, &labels, |i| label(&self.root, &listing.path(&now[i])))?;
            start += count;
        }
        Ok(())
    }
}

impl ImageFolder {
    fn listing(&self, split: SplitName) -> Result<&Listing, DatasetError> {
        self.splits[&split].1.as_ref().map_err(Clone::clone)
    }
}

/// A whole file that is still what was found, or why it is no image; of one that is too long for an image, enough
/// to see that.
///
/// # Errors
/// When the machine is at fault, as it is when a disk fails.
fn read(path: &Path, state: FileState) -> Result<Result<Vec<u8>, String>, DatasetError> {
    let mut bytes = Vec::new();
    let mut read = || -> std::io::Result<FileState> {
        let file = pba_files::open(path)?;
        (&file).take(ENCODED_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
        Ok(FileState::of(&file.metadata()?))
    };
    match read() {
        Ok(found) if found == state => Ok(Ok(bytes)),
        Ok(_) => Ok(Err("changed since the folder was listed; import it again".to_owned())),
        Err(error) => {
            let reason = format!("cannot read it: {error}");
            let error = DatasetError::io(path, "read it")(error);
            if error.fault() == Some(Fault::Machine) { Err(error) } else { Ok(Err(reason)) }
        }
    }
}
